"""TaskStart: where a logit begins, and in what units it moves; from the labels of the training split."""

# B rows, S statistics of the labels

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
    """Counts and sums of the statistics of some rows; those of all rows are the sum of the parts'.

    Example: a click in one of four rows, and watched seconds 2 and 4 in two of them::

        num_rows_S = [4, 2]     sums_S = [1, 6]     squares_S = [1, 20]
    """

    num_rows_S: Tensor
    """Rows that count; float64."""
    sums_S: Tensor
    """Sums of the values; float64."""
    squares_S: Tensor
    """Sums of their squares; float64."""

    @classmethod
    def of(cls, values_BS: Tensor, weights_BS: Tensor) -> "LabelSums":
        """The sums of a batch.

        Args:
            values_BS: statistics of the labels; finite.
            weights_BS: 1 where a row counts.
        """
        values_BS, weights_BS = values_BS.double(), weights_BS.double()
        return cls(
            num_rows_S=weights_BS.sum(dim=0),
            sums_S=(weights_BS * values_BS).sum(dim=0),
            squares_S=(weights_BS * values_BS.square()).sum(dim=0),
        )

    def __add__(self, other: "LabelSums") -> "LabelSums":
        return LabelSums(
            self.num_rows_S + other.num_rows_S, self.sums_S + other.sums_S, self.squares_S + other.squares_S
        )

    def take(self, first: int, size: int) -> "LabelSums":
        """The sums of some of the statistics."""
        part = slice(first, first + size)
        return LabelSums(self.num_rows_S[part], self.sums_S[part], self.squares_S[part])

    def binary_start(self, place: int) -> TaskStart:
        """Log-odds; of (positives + 1/2) / (rows + 1), so that a label that never varies has finite ones."""
        num_positive = float(self.sums_S[place]) + 0.5
        num_negative = float(self.num_rows_S[place]) + 1.0 - num_positive
        return TaskStart(logit=float(torch.tensor(num_positive / num_negative, dtype=torch.float64).log()))

    def value_start(self, place: int) -> TaskStart:
        """Mean and standard deviation; (0, 1) without rows, and a unit of 1 where the label never varies."""
        num_rows = float(self.num_rows_S[place])
        if num_rows == 0:
            return TaskStart()
        mean = float(self.sums_S[place]) / num_rows
        variance = max(float(self.squares_S[place]) / num_rows - mean * mean, 0.0)
        return TaskStart(logit=mean, unit=variance**0.5 if variance > 1e-12 * (1.0 + mean * mean) else 1.0)
