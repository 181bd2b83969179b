"""ScoredRows: the rows a metric has taken in, and their order by score."""

# N rows, U runs of equal scores

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recmoe.evaluation.metrics.metric import FloatArray
from recmoe.evaluation.metrics.ranked_lists import RankedLists


@dataclass(frozen=True)
class ScoreOrder:
    """Rows from the lowest to the highest score."""

    order_N: NDArray[np.intp]
    """Row at each place; rows of equal score in the order they came in."""
    starts_U: NDArray[np.intp]
    """Place at which each run of equal scores begins."""


class ScoredRows:
    """Scores, labels and groups of all rows so far; sorted once, however often it is asked."""

    def __init__(self) -> None:
        self._scores: list[FloatArray] = []
        self._labels: list[FloatArray] = []
        self._groups: list[NDArray[np.int64]] = []
        self._order: ScoreOrder | None = None
        self._lists: RankedLists | None = None

    def update(self, scores_N: FloatArray, labels_N: FloatArray, groups_N: NDArray[np.int64] | None = None) -> None:
        """Take rows in."""
        assert len(scores_N) == len(labels_N)
        self._scores.append(np.asarray(scores_N, dtype=np.float64))
        self._labels.append(np.asarray(labels_N, dtype=np.float64))
        if groups_N is not None:
            assert len(groups_N) == len(scores_N)
            self._groups.append(np.asarray(groups_N, dtype=np.int64))
        self._order = self._lists = None

    def merge(self, other: "ScoredRows") -> None:
        """Take in the rows of another one, after the own."""
        self._scores += other._scores
        self._labels += other._labels
        self._groups += other._groups
        self._order = self._lists = None

    @property
    def scores_N(self) -> FloatArray:
        """Scores in the order the rows came in."""
        return _joined(self._scores, np.float64)

    @property
    def labels_N(self) -> FloatArray:
        """Labels in the order the rows came in."""
        return _joined(self._labels, np.float64)

    @property
    def groups_N(self) -> NDArray[np.int64]:
        """Group of each row in the order the rows came in."""
        return _joined(self._groups, np.int64)

    @property
    def by_score(self) -> ScoreOrder:
        """The rows from the lowest to the highest score."""
        if self._order is None:
            scores_N = self.scores_N
            order_N = np.argsort(scores_N, kind="stable")
            sorted_N = scores_N[order_N]
            self._order = ScoreOrder(
                order_N, np.flatnonzero(np.r_[True, sorted_N[1:] != sorted_N[:-1]][: len(order_N)])
            )
        return self._order

    @property
    def lists(self) -> RankedLists:
        """The rows as one list per group, each from the highest to the lowest score."""
        if self._lists is None:
            assert sum(map(len, self._groups)) == sum(map(len, self._scores)), "metrics over groups need groups_N"
            self._lists = RankedLists.of(self.scores_N, self.labels_N, self.groups_N)
        return self._lists

    def undefined_reason(self) -> str | None:
        """Why a metric that tells positives from negatives has no value; None where it has."""
        labels_N = self.labels_N
        if labels_N.size == 0:
            return "no rows"
        if not labels_N.any():
            return "no positive rows"
        return "no negative rows" if labels_N.all() else None


def _joined(chunks: list[NDArray], dtype: type) -> NDArray:  # type: ignore[type-arg]
    """One array for many; the list is shortened to it, so that it is joined once."""
    if len(chunks) != 1:
        chunks[:] = [np.concatenate(chunks) if chunks else np.empty(0, dtype=dtype)]
    return chunks[0]
