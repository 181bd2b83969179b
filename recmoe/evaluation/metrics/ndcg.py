"""Normalized discounted cumulative gain at the top of each list.

Järvelin & Kekäläinen, TOIS 2002, https://doi.org/10.1145/582415.582418, for labels of 0 and 1.
"""

# N rows, G lists (groups), U runs of equal score within a list

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from recmoe.config import Config
from recmoe.evaluation.metrics.metric import FloatArray, MetricValue, ratio
from recmoe.evaluation.metrics.scored_rows import ScoredRows
from recmoe.tasks.task import Best, TaskOutput


class Ndcg:
    """Mean over lists of DCG@k / best DCG@k, where DCG@k = Σ over places i ≤ k of label_i / log₂(i + 1).

    Lists without a positive are dropped and counted. Ties by expectation, see ``RankedLists``.

    Args:
        k: places from the top that count.
    """

    def __init__(self, *, k: int) -> None:
        self.k = k
        self.rows = ScoredRows()

    def update(self, scores_N: FloatArray, labels_N: FloatArray, groups_N: NDArray[np.int64] | None = None) -> None:
        """See ``Metric``."""
        self.rows.update(scores_N, labels_N, groups_N)

    def merge(self, other: Self) -> None:
        """See ``Metric``."""
        self.rows.merge(other.rows)

    def compute(self, counts_RN: FloatArray | None = None) -> MetricValue:
        """See ``Metric``; not defined where no list has a positive."""
        lists = self.rows.lists
        num_places = min(self.k, int(lists.size_G.max(initial=0)))
        discounts = np.r_[0.0, np.cumsum(1 / np.log2(np.arange(num_places) + 2))]

        def discount_of_first(count: FloatArray) -> FloatArray:
            sums: FloatArray = discounts[np.minimum(count, num_places).astype(np.intp)]
            return sums

        per_run_U = discount_of_first(lists.offset_U + lists.size_U) - discount_of_first(lists.offset_U)
        gain_G = lists.sum_per_list(lists.positives_U / lists.size_U * per_run_U)
        return lists.mean(
            ratio(gain_G, discount_of_first(lists.positives_G)),
            is_used_G=lists.positives_G > 0,
            weights_G=np.ones_like(lists.size_G),
            needs="a positive row",
            counts_RN=counts_RN,
        )


class NdcgConfig(Config):
    """Normalized discounted cumulative gain at k."""

    outputs: ClassVar[tuple[TaskOutput, ...]] = ("binary", "score")
    needs_groups: ClassVar[bool] = True
    best: ClassVar[Best] = "highest"

    kind: Literal["ndcg"] = "ndcg"
    k: PositiveInt = 10
    """Places from the top that count."""

    @property
    def name(self) -> str:
        """Its name in a report."""
        return f"{self.kind}@{self.k}"

    def build(self) -> Ndcg:
        """An empty state."""
        return Ndcg(k=self.k)
