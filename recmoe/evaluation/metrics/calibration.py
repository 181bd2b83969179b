"""Calibration: whether predictions are right on average."""

# N rows, R resamples

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from recmoe.config import Config
from recmoe.evaluation.metrics.metric import FloatArray, MetricValue, ratio, row_means, undefined
from recmoe.evaluation.metrics.scored_rows import ScoredRows
from recmoe.tasks.task import Best, TaskOutput


class Calibration:
    """Σ predictions / Σ labels: 1 is right on average, 1.1 predicts a tenth too much.

    He et al., ADKDD 2014, https://doi.org/10.1145/2648584.2648589, section 2.
    """

    def __init__(self) -> None:
        self.rows = ScoredRows()

    def update(self, scores_N: FloatArray, labels_N: FloatArray, groups_N: NDArray[np.int64] | None = None) -> None:
        """See ``Metric``."""
        self.rows.update(scores_N, labels_N, groups_N)

    def merge(self, other: Self) -> None:
        """See ``Metric``."""
        self.rows.merge(other.rows)

    def compute(self, counts_RN: FloatArray | None = None) -> MetricValue:
        """See ``Metric``; not defined where the labels sum to zero."""
        if self.rows.labels_N.size == 0:
            return undefined("no rows", counts_RN)
        if self.rows.labels_N.sum() == 0:
            return undefined("no positive rows" if not self.rows.labels_N.any() else "labels sum to zero", counts_RN)
        means_RS = row_means(np.stack([self.rows.scores_N, self.rows.labels_N], axis=1), counts_RN)
        return MetricValue(ratio(means_RS[:, 0], means_RS[:, 1]))


class CalibrationConfig(Config):
    """Sum of predictions over sum of labels."""

    outputs: ClassVar[tuple[TaskOutput, ...]] = ("binary", "regression")
    needs_groups: ClassVar[bool] = False
    best: ClassVar[Best] = "one"

    kind: Literal["calibration"] = "calibration"

    @property
    def name(self) -> str:
        """Its name in a report."""
        return self.kind

    def build(self) -> Calibration:
        """An empty state."""
        return Calibration()
