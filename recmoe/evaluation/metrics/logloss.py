"""Logloss: the mean cross-entropy of probabilities."""

# N rows, R resamples

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from recmoe.config import Config
from recmoe.evaluation.metrics.metric import FloatArray, MetricValue, row_means, undefined
from recmoe.evaluation.metrics.scored_rows import ScoredRows
from recmoe.tasks.task import Best, TaskOutput


def cross_entropy(scores_N: FloatArray, labels_N: FloatArray) -> FloatArray:
    """loss_N in nats."""
    return -np.log(np.where(labels_N > 0.5, scores_N, 1.0 - scores_N))


def clipped(scores_N: FloatArray) -> FloatArray:
    """Probabilities within the precision of their type of 0 and 1, as scikit-learn clips them.

    A float32 probability that is rounded to 1 was less than 1: without the cut one such row makes the loss infinite.
    """
    scores_N = np.asarray(scores_N)
    epsilon = np.finfo(scores_N.dtype).eps
    return np.clip(scores_N, epsilon, 1.0 - epsilon)


class LogLoss:
    """Mean of −y·log p − (1 − y)·log(1 − p), in nats."""

    def __init__(self) -> None:
        self.rows = ScoredRows()

    def update(self, scores_N: FloatArray, labels_N: FloatArray, groups_N: NDArray[np.int64] | None = None) -> None:
        """See ``Metric``."""
        self.rows.update(clipped(scores_N), labels_N, groups_N)

    def merge(self, other: Self) -> None:
        """See ``Metric``."""
        self.rows.merge(other.rows)

    def compute(self, counts_RN: FloatArray | None = None) -> MetricValue:
        """See ``Metric``; not defined without rows."""
        if self.rows.labels_N.size == 0:
            return undefined("no rows", counts_RN)
        losses_N = cross_entropy(self.rows.scores_N, self.rows.labels_N)
        return MetricValue(row_means(losses_N[:, None], counts_RN)[:, 0])


class LogLossConfig(Config):
    """Mean cross-entropy, in nats."""

    outputs: ClassVar[tuple[TaskOutput, ...]] = ("binary",)
    needs_groups: ClassVar[bool] = False
    best: ClassVar[Best] = "lowest"

    kind: Literal["logloss"] = "logloss"

    @property
    def name(self) -> str:
        """Its name in a report."""
        return self.kind

    def build(self) -> LogLoss:
        """An empty state."""
        return LogLoss()
