"""Level: how the predictions of an amount are made to sum to its labels, once training is done."""

# N rows

import math
from dataclasses import dataclass

from torch import Tensor

EXPECTED_ERROR = 0.1
"""By how much a model is usually off, as a logarithm: a ratio that is known worse than this is followed less."""


@dataclass(frozen=True)
class Level:
    """A logit that multiplies the prediction, counted from ``−offset``, by exp of what is added to it.

    While the learning rate is high, all predictions of an amount rise and fall together from step to step; the
    checkpoint that is best may hold any of it.
    """

    logit: int
    """Its place among the task's own."""
    offset: float
    """1 on the scale of log1p, 0 on that of the logarithm."""

    def shift(self, predictions_N: Tensor, labels_N: Tensor) -> float:
        """What to add to the logit, from rows that the model has not learned from::

            log r · τ² / (τ² + s²),     r = Σ (y + offset) / Σ (p + offset),     s its standard error

        Args:
            predictions_N: of the rows that count.
            labels_N: their labels.
        """
        predictions_N, labels_N = predictions_N.double() + self.offset, labels_N.double() + self.offset
        above, below = float(labels_N.sum()), float(predictions_N.sum())
        if len(labels_N) < 2 or above <= 0 or below <= 0:
            return 0.0
        error = float((labels_N - predictions_N * (above / below)).square().sum().sqrt()) / above
        return math.log(above / below) * EXPECTED_ERROR**2 / (EXPECTED_ERROR**2 + error**2)
