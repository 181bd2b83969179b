"""Root of the mean squared error."""

# N rows, R resamples

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from recmoe.config import Config
from recmoe.evaluation.metrics.metric import FloatArray, MetricValue, row_means, undefined
from recmoe.evaluation.metrics.scored_rows import ScoredRows
from recmoe.tasks.task import Best, TaskOutput


class Rmse:
    """√ of the mean of (prediction − label)², in the unit of the label."""

    def __init__(self) -> None:
        self.rows = ScoredRows()

    def update(self, scores_N: FloatArray, labels_N: FloatArray, groups_N: NDArray[np.int64] | None = None) -> None:
        """See ``Metric``."""
        self.rows.update(scores_N, labels_N, groups_N)

    def merge(self, other: Self) -> None:
        """See ``Metric``."""
        self.rows.merge(other.rows)

    def compute(self, counts_RN: FloatArray | None = None) -> MetricValue:
        """See ``Metric``; not defined without rows."""
        if self.rows.labels_N.size == 0:
            return undefined("no rows", counts_RN)
        errors_N = self.rows.scores_N - self.rows.labels_N
        return MetricValue(np.sqrt(row_means((errors_N**2)[:, None], counts_RN)[:, 0]))


class RmseConfig(Config):
    """Root of the mean squared error, in the unit of the label."""

    outputs: ClassVar[tuple[TaskOutput, ...]] = ("regression",)
    needs_groups: ClassVar[bool] = False
    best: ClassVar[Best] = "lowest"

    kind: Literal["rmse"] = "rmse"

    @property
    def name(self) -> str:
        """Its name in a report."""
        return self.kind

    def build(self) -> Rmse:
        """An empty state."""
        return Rmse()
