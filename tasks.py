"""The four tasks: their data sets, how they are trained, and what the paper reports.

Source: docs/published_program.md, "Schedules and selection" and "Published results". Their
networks are in model.py.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Task:
    """How a task is trained.

    LR falls linearly from LR_start to LR_start / 10 over LR_sat epochs, M rises from M_start to
    M_end over M_sat epochs.

    Parameters
    ----------
    data_set
        Name in datasets.LOADERS.
    segment
        Batches trained between two looks at the state; results do not depend on it.
    shuffle
        "examples", or "batches": the order of the chunks of chunk_batches batches, and of the
        batches in each.
    paper
        The published test errors in %, by format.
    """

    data_set: str
    batch_size: int
    epochs: int
    LR_start: float
    LR_sat: int
    M_sat: int
    segment: int
    shuffle: str = "examples"
    chunk_batches: int | None = None
    M_start: float = 0.5
    M_end: float = 0.7
    paper: dict[str, float] = field(default_factory=dict)

    def schedule(self, epochs: int) -> list[tuple[float, float]]:
        """(LR, M) of epochs 1, 2, ..., in float64.

        LR and M take one step an epoch while they are short of their end values, then stay
        there. The published number of epochs keeps the published rule, whose last step may
        overshoot by rounding; with another number the steps scale and the values are clamped.
        """
        scale = epochs / self.epochs
        LR_sat = max(1, round(self.LR_sat * scale))
        M_sat = max(1, round(self.M_sat * scale))
        LR_end = self.LR_start / 10
        LR = self.LR_start
        M = self.M_start
        values = []
        for _ in range(epochs):
            values.append((LR, M))
            LR = LR + (LR_end - self.LR_start) / LR_sat if LR > LR_end else LR_end
            M = M + (self.M_end - self.M_start) / M_sat if M < self.M_end else self.M_end
            if epochs != self.epochs:
                LR = max(LR, LR_end)
                M = min(M, self.M_end)
        return values


TASKS = {
    "PI_MNIST": Task(
        data_set="mnist",
        batch_size=100,
        epochs=800,
        LR_start=0.05,
        LR_sat=400,
        M_sat=200,
        segment=100,
        paper={"FLP": 1.05, "HFLP": 1.10, "FXP": 1.39, "DFXP": 1.28},
    ),
    "MNIST": Task(
        data_set="mnist",
        batch_size=128,
        epochs=800,
        LR_start=0.02,
        LR_sat=400,
        M_sat=200,
        segment=13,
        paper={"FLP": 0.51, "HFLP": 0.51, "FXP": 0.57, "DFXP": 0.59},
    ),
    "CIFAR10": Task(
        data_set="cifar10",
        batch_size=128,
        epochs=400,
        LR_start=0.02,
        LR_sat=200,
        M_sat=200,
        segment=13,
        paper={"FLP": 14.05, "HFLP": 14.14, "FXP": 15.98, "DFXP": 14.82},
    ),
    "SVHN": Task(
        data_set="svhn",
        batch_size=128,
        epochs=200,
        LR_start=0.05,
        LR_sat=100,
        M_sat=100,
        segment=13,
        shuffle="batches",
        chunk_batches=79,
        paper={"FLP": 2.71, "HFLP": 3.02, "FXP": 2.97, "DFXP": 4.95},
    ),
}
