"""How much of each task the benchmark measures at a time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Batches that are evaluated, batches of the peer, and repetitions of the floor."""

    test_batches: int = 5
    peer_batches: int = 3
    floor_repeats: int = 2


# The tasks that are measured unless others are asked for; SVHN's network is CIFAR10's.
EFFORTS = {
    "PI_MNIST": Effort(test_batches=100, peer_batches=40, floor_repeats=20),
    "MNIST": Effort(test_batches=10, peer_batches=5),
    "CIFAR10": Effort(),
}


def effort(task: str) -> Effort:
    """That of any task."""
    return EFFORTS.get(task, Effort())
