"""Mean reciprocal rank of the first positive of each list."""

# N rows, G lists (groups), U runs of equal score within a list

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from recmoe.config import Config
from recmoe.evaluation.metrics.metric import FloatArray, MetricValue
from recmoe.evaluation.metrics.scored_rows import ScoredRows
from recmoe.tasks.task import Best, TaskOutput


class Mrr:
    """Mean over lists of 1 / place of the first positive; 0 where that lies beyond place k.

    Lists without a positive are dropped and counted. Ties by expectation, see ``RankedLists``: where the first
    positives are m of n rows of equal score behind s others, the first of them stands at place s + i with
    probability  C(n − i, m − 1) / C(n, m).

    Args:
        k: places from the top that count; all by default.
    """

    def __init__(self, *, k: int | None = None) -> None:
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
        runs = np.flatnonzero(lists.positives_U > 0)
        used, first = np.unique(lists.list_U[runs], return_index=True)
        runs = runs[first]
        values_G = np.zeros_like(lists.size_G)
        values_G[used] = _expected_reciprocal(
            lists.offset_U[runs], lists.size_U[runs], lists.positives_U[runs], k=self.k or np.inf
        )
        return lists.mean(
            values_G,
            is_used_G=lists.positives_G > 0,
            weights_G=np.ones_like(lists.size_G),
            needs="a positive row",
            counts_RN=counts_RN,
        )


def _expected_reciprocal(offset_G: FloatArray, size_G: FloatArray, positives_G: FloatArray, *, k: float) -> FloatArray:
    """E[1 / place] of the first of m positives among n rows in random order, behind s others."""
    expected_G = np.zeros_like(offset_G)
    none_before_G = np.ones_like(offset_G)
    open_G = np.arange(len(offset_G))
    step = 0
    while open_G.size:
        left_G = size_G[open_G] - step
        is_first_G = none_before_G[open_G] * positives_G[open_G] / left_G
        place_G = offset_G[open_G] + step + 1
        expected_G[open_G] += np.where(place_G <= k, is_first_G / place_G, 0.0)
        none_before_G[open_G] -= is_first_G
        step += 1
        # The first positive has at most n − m rows of its run before it.
        open_G = open_G[(step <= size_G[open_G] - positives_G[open_G]) & (place_G < k)]
    return expected_G


class MrrConfig(Config):
    """Reciprocal place of the first positive."""

    outputs: ClassVar[tuple[TaskOutput, ...]] = ("binary", "score")
    needs_groups: ClassVar[bool] = True
    best: ClassVar[Best] = "highest"

    kind: Literal["mrr"] = "mrr"
    k: PositiveInt | None = None
    """Places from the top that count; all by default."""

    @property
    def name(self) -> str:
        """Its name in a report."""
        return self.kind if self.k is None else f"{self.kind}@{self.k}"

    def build(self) -> Mrr:
        """An empty state."""
        return Mrr(k=self.k)
