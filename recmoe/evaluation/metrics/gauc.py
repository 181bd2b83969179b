"""AUC within each group: user, session or request.

Zhu et al., KDD 2017, https://arxiv.org/abs/1703.02091, equation 1. The name means several things in the
field; here the weighting is part of it.
"""

# N rows, G groups, U runs of equal score within a group

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from recmoe.config import Config
from recmoe.evaluation.metrics.metric import FloatArray, MetricValue, ratio
from recmoe.evaluation.metrics.scored_rows import ScoredRows
from recmoe.tasks.task import Best, TaskOutput


class Gauc:
    """Mean of the AUC of each group that has both a positive and a negative; the others are dropped and counted.

    Rows without a group are left out, as in all metrics over groups.

    Args:
        weight: ``group`` lets each group count once, ``impression`` as often as it has rows.
    """

    def __init__(self, *, weight: Literal["group", "impression"]) -> None:
        self.weight = weight
        self.rows = ScoredRows()

    def update(self, scores_N: FloatArray, labels_N: FloatArray, groups_N: NDArray[np.int64] | None = None) -> None:
        """See ``Metric``."""
        self.rows.update(scores_N, labels_N, groups_N)

    def merge(self, other: Self) -> None:
        """See ``Metric``."""
        self.rows.merge(other.rows)

    def compute(self, counts_RN: FloatArray | None = None) -> MetricValue:
        """See ``Metric``; not defined where no group has both a positive and a negative."""
        lists = self.rows.lists
        negatives_U = lists.size_U - lists.positives_U
        above_U = np.cumsum(negatives_U) - negatives_U
        above_U -= above_U[lists.run_starts_G][lists.list_U]
        negatives_G = lists.size_G - lists.positives_G
        below_U = negatives_G[lists.list_U] - above_U - negatives_U
        wins_G = lists.sum_per_list(lists.positives_U * (below_U + negatives_U / 2))
        num_pairs_G = lists.positives_G * negatives_G
        return lists.mean(
            ratio(wins_G, num_pairs_G),
            is_used_G=num_pairs_G > 0,
            weights_G=lists.size_G if self.weight == "impression" else np.ones_like(lists.size_G),
            needs="both a positive and a negative row",
            counts_RN=counts_RN,
        )


class GaucUserMeanConfig(Config):
    """AUC within each group, every group counting once."""

    outputs: ClassVar[tuple[TaskOutput, ...]] = ("binary", "score")
    needs_groups: ClassVar[bool] = True
    best: ClassVar[Best] = "highest"

    kind: Literal["gauc_user_mean"] = "gauc_user_mean"

    @property
    def name(self) -> str:
        """Its name in a report."""
        return self.kind

    def build(self) -> Gauc:
        """An empty state."""
        return Gauc(weight="group")


class GaucImpressionConfig(Config):
    """AUC within each group, every group counting as often as it has rows."""

    outputs: ClassVar[tuple[TaskOutput, ...]] = ("binary", "score")
    needs_groups: ClassVar[bool] = True
    best: ClassVar[Best] = "highest"

    kind: Literal["gauc_impression"] = "gauc_impression"

    @property
    def name(self) -> str:
        """Its name in a report."""
        return self.kind

    def build(self) -> Gauc:
        """An empty state."""
        return Gauc(weight="impression")
