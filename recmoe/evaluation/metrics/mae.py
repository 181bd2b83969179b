"""Mean absolute error."""

# N rows, R resamples

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from recmoe.config import Config
from recmoe.evaluation.metrics.metric import FloatArray, MetricValue, row_means, undefined
from recmoe.evaluation.metrics.scored_rows import ScoredRows
from recmoe.tasks.task import Best, TaskOutput


class Mae:
    """Mean of |prediction − label|, in the unit of the label."""

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
        return MetricValue(row_means(np.abs(errors_N)[:, None], counts_RN)[:, 0])


class MaeConfig(Config):
    """Mean absolute error, in the unit of the label."""

    outputs: ClassVar[tuple[TaskOutput, ...]] = ("regression",)
    needs_groups: ClassVar[bool] = False
    best: ClassVar[Best] = "lowest"

    kind: Literal["mae"] = "mae"

    @property
    def name(self) -> str:
        """Its name in a report."""
        return self.kind

    def build(self) -> Mae:
        """An empty state."""
        return Mae()
