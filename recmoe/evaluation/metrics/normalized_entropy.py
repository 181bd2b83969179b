"""Normalized entropy: logloss beside that of always predicting the mean label.

He et al., ADKDD 2014, https://doi.org/10.1145/2648584.2648589, equation 1.
"""

# N rows, R resamples

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from recmoe.config import Config
from recmoe.evaluation.metrics.logloss import clipped, cross_entropy
from recmoe.evaluation.metrics.metric import FloatArray, MetricValue, row_means, undefined
from recmoe.evaluation.metrics.scored_rows import ScoredRows
from recmoe.tasks.task import Best, TaskOutput


class NormalizedEntropy:
    """NE = logloss / H(p̄), where p̄ is the share of positives and H(p̄) = −p̄·log p̄ − (1 − p̄)·log(1 − p̄).

    Below 1 the model knows more than the mean; unlike logloss it compares across tasks of different rates.
    """

    def __init__(self) -> None:
        self.rows = ScoredRows()

    def update(self, scores_N: FloatArray, labels_N: FloatArray, groups_N: NDArray[np.int64] | None = None) -> None:
        """See ``Metric``."""
        self.rows.update(clipped(scores_N), labels_N, groups_N)

    def merge(self, other: Self) -> None:
        """See ``Metric``."""
        self.rows.merge(other.rows)

    def compute(self, counts_RN: FloatArray | None = None) -> MetricValue:
        """See ``Metric``; not defined without both positives and negatives."""
        reason = self.rows.undefined_reason()
        if reason:
            return undefined(reason, counts_RN)
        labels_N = self.rows.labels_N
        means_RS = row_means(np.stack([cross_entropy(self.rows.scores_N, labels_N), labels_N], axis=1), counts_RN)
        rate_R = means_RS[:, 1]
        is_mixed_R = (rate_R > 0) & (rate_R < 1)
        rate_R = np.where(is_mixed_R, rate_R, np.nan)
        return MetricValue(means_RS[:, 0] / -(rate_R * np.log(rate_R) + (1 - rate_R) * np.log1p(-rate_R)))


class NormalizedEntropyConfig(Config):
    """Logloss divided by that of always predicting the mean label."""

    outputs: ClassVar[tuple[TaskOutput, ...]] = ("binary",)
    needs_groups: ClassVar[bool] = False
    best: ClassVar[Best] = "lowest"

    kind: Literal["normalized_entropy"] = "normalized_entropy"

    @property
    def name(self) -> str:
        """Its name in a report."""
        return self.kind

    def build(self) -> NormalizedEntropy:
        """An empty state."""
        return NormalizedEntropy()
