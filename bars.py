"""What a terminal shows of a run while it trains: where it is, how fast, how long still."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer import Trainer

TICK = 1.0  # seconds between two looks at the clock
RECENT = 0.8  # how much of the speed before counts after another segment
BAR = "{desc} |{bar}| {percentage:3.0f} %{postfix}"


def where(trainer: "Trainer", last_epoch: int) -> str:
    """What a trainer is at, and how far it is in that."""
    here = trainer.position
    batches = trainer.batches_per_epoch
    init_epochs = trainer.settings.init_epochs
    if here.initialising:
        number = min((here.init_epochs or 0) + 1, init_epochs)
        words = f"range initialisation {number} of {init_epochs}"
    elif here.epoch < 0:
        return "untrained network"
    else:
        words = f"epoch {min(here.epoch + 1, last_epoch)} of {last_epoch}"
        if here.epoch == last_epoch:
            return words
        if here.batches == batches:
            return f"{words}, testing"
    return f"{words}, {100 * (here.batches or 0) // batches} %"


def duration(seconds: float) -> str:
    """As much as matters of a duration: 40 s, 12 min, 5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3 * 3600 else f"{seconds / 3600:.0f} h"


class Pace:
    """How fast batches are trained. What is compiled takes no time here.

    Attributes
    ----------
    speed : float or None
        Batches a second while training, of late; None before the first.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.speed: float | None = None
        self._clock = clock
        self._recent = [0.0, 0.0]  # batches, and the seconds that they took
        self._all = [0.0, 0.0]  # likewise, with all that is done between batches
        self._last = clock()
        self._since: float | None = None  # when what is being compiled was begun

    @property
    def compiling(self) -> float | None:
        """For how many seconds something has been compiled; None if nothing is."""
        return None if self._since is None else self._clock() - self._since

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Around what is compiled."""
        self._since = self._clock()
        try:
            yield
        finally:
            self._last += self._clock() - self._since
            self._since = None

    def look(self, batches: int) -> None:
        """So many batches have been trained since the last look."""
        now = self._clock()
        took = now - self._last
        self._last = now
        if batches:
            done, seconds = self._recent
            self._recent = [RECENT * done + batches, RECENT * seconds + took]
            self.speed = self._recent[0] / max(self._recent[1], 1e-9)
        if batches or self._all[0]:  # what was done before the first tells nothing of the rest
            self._all = [self._all[0] + batches, self._all[1] + took]

    def left(self, batches: float) -> float | None:
        """Seconds that so many batches will take with what is between them; None if unknown."""
        done, seconds = self._all
        return batches * seconds / done if done else None


class Ticker:
    """Calls a function every second, from a thread of its own, until it is stopped."""

    def __init__(self, tick: Callable[[], object]) -> None:
        self._tick = tick
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)

    def start(self) -> None:
        # Without it nothing but the seconds stands still.
        with contextlib.suppress(RuntimeError):
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(TICK):
            self._tick()


class Bar:
    """A bar on stderr when that is a terminal: where the run is, time left, images a second."""

    def __init__(self) -> None:
        self.pace = Pace()
        self._bar: Any = None
        self._batch_size = 0
        self._began = 0.0
        self._where = ""
        self._ticker = Ticker(self._show)
        self._lock = threading.RLock()

    def open(self, total: int, done: int, batch_size: int, where: str) -> None:
        """Show it, with `done` of `total` batches of `batch_size` images."""
        self._batch_size = batch_size
        self._where = where
        self._began = time.monotonic()
        self.pace.look(0)
        if sys.stderr.isatty() and done < total:
            from tqdm import tqdm

            with contextlib.suppress(OSError):
                self._bar = tqdm(
                    desc=where,
                    total=total,
                    initial=done,
                    leave=False,
                    dynamic_ncols=True,
                    bar_format=BAR,
                )
                self._ticker.start()

    def advance(self, batches: int, where: str) -> None:
        """So many batches more; the run is at `where`."""
        self.pace.look(batches)
        self._where = where
        if self._bar is not None:
            self._bar.n += batches
            if batches:
                self._show()

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Around what is compiled."""
        with self.pace.apart():
            self._show()
            yield
        self._show()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Within it the bar makes room for something that is printed."""
        with self._lock:
            self._draw(lambda bar: bar.clear())
            yield
        self._show()

    def close(self) -> None:
        self._ticker.stop()
        self._draw(lambda bar: bar.close())
        self._bar = None

    def _show(self) -> None:
        """Draw it as things are now."""
        if self._bar is None:
            return
        seconds = self.pace.compiling
        words = self._where if seconds is None else f"compiling, {seconds:.0f} s"
        facts = [duration(time.monotonic() - self._began)]
        if (left := self.pace.left(self._bar.total - self._bar.n)) is not None:
            facts[0] += f", {duration(left)} left"
        if self.pace.speed is not None:
            facts.append(f"{self.pace.speed * self._batch_size:,.0f} images/s")

        def show(bar: Any) -> None:
            bar.set_description_str(words, refresh=False)
            bar.set_postfix_str(", ".join(facts), refresh=False)
            bar.refresh()

        self._draw(show)

    def _draw(self, change: Callable[..., object]) -> None:
        """Change the bar; there is none any more when the terminal is gone."""
        with self._lock:
            try:
                if self._bar is None:
                    return
                change(self._bar)
            except (OSError, ValueError):  # ValueError: the stream is closed
                self._bar = None
