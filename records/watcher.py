"""Who is told while a run is followed."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer import Trainer


class Watcher:
    """Each method may be overridden."""

    def resumed(self, trainer: "Trainer", last_epoch: int) -> None:
        """`trainer` stands where training goes on."""

    def trained(self, batches: int) -> None:
        """As many batches more; may raise Stopped."""

    def note(self, text: str) -> None:
        """One line for the user."""
