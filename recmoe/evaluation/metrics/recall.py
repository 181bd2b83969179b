"""Recall at the top of each list."""

# N rows, G lists (groups), U runs of equal score within a list

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from recmoe.config import Config
from recmoe.evaluation.metrics.metric import FloatArray, MetricValue, ratio
from recmoe.evaluation.metrics.scored_rows import ScoredRows
from recmoe.tasks.task import Best, TaskOutput


class Recall:
    """Mean over lists of the share of their positives that stand in the first k places.

    Lists without a positive are dropped and counted. A list with more than k positives cannot reach 1.
    Ties by expectation, see ``RankedLists``.

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
        places_U = np.minimum(lists.offset_U + lists.size_U, self.k) - np.minimum(lists.offset_U, self.k)
        found_G = lists.sum_per_list(lists.positives_U / lists.size_U * places_U)
        return lists.mean(
            ratio(found_G, lists.positives_G),
            is_used_G=lists.positives_G > 0,
            weights_G=np.ones_like(lists.size_G),
            needs="a positive row",
            counts_RN=counts_RN,
        )


class RecallConfig(Config):
    """Share of the positives in the first k places."""

    outputs: ClassVar[tuple[TaskOutput, ...]] = ("binary", "score")
    needs_groups: ClassVar[bool] = True
    best: ClassVar[Best] = "highest"

    kind: Literal["recall"] = "recall"
    k: PositiveInt = 10
    """Places from the top that count."""

    @property
    def name(self) -> str:
        """Its name in a report."""
        return f"{self.kind}@{self.k}"

    def build(self) -> Recall:
        """An empty state."""
        return Recall(k=self.k)
