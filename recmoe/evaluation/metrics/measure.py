"""RowMean: the mean of a number that a task gives every row, such as its pinball loss."""

# N rows, R resamples

from typing import Self

import numpy as np
from numpy.typing import NDArray

from recmoe.evaluation.metrics.metric import FloatArray, MetricValue, row_means, undefined
from recmoe.evaluation.metrics.scored_rows import ScoredRows


class RowMean:
    """The mean over rows of what a kind of task measures itself; see ``Task.measures``."""

    def __init__(self) -> None:
        self.rows = ScoredRows()

    def update(self, scores_N: FloatArray, labels_N: FloatArray, groups_N: NDArray[np.int64] | None = None) -> None:
        """Take rows in: in place of predictions, the measure of each row."""
        self.rows.update(scores_N, labels_N, groups_N)

    def merge(self, other: Self) -> None:
        """See ``Metric``."""
        self.rows.merge(other.rows)

    def compute(self, counts_RN: FloatArray | None = None) -> MetricValue:
        """See ``Metric``; not defined without rows."""
        if self.rows.labels_N.size == 0:
            return undefined("no rows", counts_RN)
        return MetricValue(row_means(self.rows.scores_N.astype(np.float64)[:, None], counts_RN)[:, 0])
