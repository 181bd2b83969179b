"""TaskStart: where the logit of a task begins, and in what units it moves; from the labels of the training split."""

# B rows, T' towers

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TaskStart:
    """The logit that predicts a task best without looking at a row."""

    logit: float = 0.0
    """Log-odds of a 0/1 label, mean of a value on the scale of its error."""
    unit: float = 1.0
    """1 for log-odds; the standard deviation of a value."""


@dataclass(frozen=True)
class LabelSums:
    """Counts and sums of the labels of some rows, per tower; those of all rows are the sum of the parts'.

    Example: a click in one of four rows, and watched seconds 2 and 4 in two of them::

        num_rows_T = [4, 2]     sums_T = [1, 6]     squares_T = [1, 20]
    """

    num_rows_T: Tensor
    """Rows that count for the task; float64."""
    sums_T: Tensor
    """Sums of the labels, on the scale of the error; float64."""
    squares_T: Tensor
    """Sums of their squares; float64."""

    @classmethod
    def of(cls, targets_BT: Tensor, weights_BT: Tensor) -> "LabelSums":
        """The sums of a batch.

        Args:
            targets_BT: labels on the scale of the error; finite.
            weights_BT: 1 where a row counts for the task.
        """
        targets_BT, weights_BT = targets_BT.double(), weights_BT.double()
        return cls(
            num_rows_T=weights_BT.sum(dim=0),
            sums_T=(weights_BT * targets_BT).sum(dim=0),
            squares_T=(weights_BT * targets_BT.square()).sum(dim=0),
        )

    def __add__(self, other: "LabelSums") -> "LabelSums":
        return LabelSums(
            self.num_rows_T + other.num_rows_T, self.sums_T + other.sums_T, self.squares_T + other.squares_T
        )

    def binary_start(self, tower: int) -> TaskStart:
        """Log-odds; of (positives + 1/2) / (rows + 1), so that a label that never varies has finite ones."""
        num_positive = float(self.sums_T[tower]) + 0.5
        num_negative = float(self.num_rows_T[tower]) + 1.0 - num_positive
        return TaskStart(logit=float(torch.tensor(num_positive / num_negative, dtype=torch.float64).log()))

    def value_start(self, tower: int) -> TaskStart:
        """Mean and standard deviation; (0, 1) without rows, and a unit of 1 where the label never varies."""
        num_rows = float(self.num_rows_T[tower])
        if num_rows == 0:
            return TaskStart()
        mean = float(self.sums_T[tower]) / num_rows
        variance = max(float(self.squares_T[tower]) / num_rows - mean * mean, 0.0)
        return TaskStart(logit=mean, unit=variance**0.5 if variance > 1e-12 * (1.0 + mean * mean) else 1.0)
