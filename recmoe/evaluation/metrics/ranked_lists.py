"""RankedLists: rows as one list per group, for metrics that look at the order within a list.

Ties are handled by expectation: where n rows of equal score hold places s + 1 … s + n, each of them is
equally likely at each place, so a metric is its mean over all orders of the run (McSherry & Najork,
ECIR 2008, https://doi.org/10.1007/978-3-540-78646-7_38). A model that scores everything alike
gets what chance would get, and the result depends neither on the order of rows nor on the sort.
"""

# N rows, G lists (groups), U runs of equal score within a list, R resamples

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recmoe.evaluation.metrics.metric import FloatArray, MetricValue, ratio
from recmoe.features.batch import NO_GROUP


@dataclass(frozen=True)
class RankedLists:
    """Lists cut into runs of rows with equal score, best first.

    Example: a list of three with scores .9 .4 .4 and labels 0 1 0 has two runs::

        offset_U = [0, 1]   size_U = [1, 2]   positives_U = [0, 1]
    """

    first_row_G: NDArray[np.intp]
    """A row of each list, by the order the rows came in."""
    size_G: FloatArray
    """Rows per list."""
    positives_G: FloatArray
    """Positive rows per list."""
    run_starts_G: NDArray[np.intp]
    """First run of each list."""
    list_U: NDArray[np.intp]
    """List of each run."""
    offset_U: FloatArray
    """Rows of the list above the run."""
    size_U: FloatArray
    """Rows of the run."""
    positives_U: FloatArray
    """Positive rows of the run."""
    num_rows: int
    """Rows, those without a list too."""

    @classmethod
    def of(cls, scores_N: FloatArray, labels_N: FloatArray, groups_N: NDArray[np.int64]) -> "RankedLists":
        """Sort rows into lists; rows without a group are in none."""
        order_N = np.lexsort((-scores_N, groups_N))
        order_N = order_N[groups_N[order_N] != NO_GROUP]
        if len(order_N) == 0:
            places, sums = np.empty(0, dtype=np.intp), np.empty(0)
            return cls(places, sums, sums, places, places, sums, sums, sums, num_rows=len(groups_N))
        num_rows = len(groups_N)
        scores_N, labels_N, groups_N = scores_N[order_N], labels_N[order_N], groups_N[order_N]
        is_new_list_N = np.ones(len(order_N), dtype=bool)
        is_new_list_N[1:] = groups_N[1:] != groups_N[:-1]
        is_new_run_N = is_new_list_N.copy()
        is_new_run_N[1:] |= scores_N[1:] != scores_N[:-1]
        list_starts_G, run_starts_U = np.flatnonzero(is_new_list_N), np.flatnonzero(is_new_run_N)
        list_U = np.cumsum(is_new_list_N)[run_starts_U] - 1
        positives_N = np.r_[0.0, np.cumsum(labels_N)]
        run_ends_U = np.append(run_starts_U[1:], len(order_N))
        list_ends_G = np.append(list_starts_G[1:], len(order_N))
        return cls(
            first_row_G=order_N[list_starts_G],
            size_G=(list_ends_G - list_starts_G).astype(np.float64),
            positives_G=positives_N[list_ends_G] - positives_N[list_starts_G],
            run_starts_G=np.searchsorted(run_starts_U, list_starts_G),
            list_U=list_U,
            offset_U=(run_starts_U - list_starts_G[list_U]).astype(np.float64),
            size_U=(run_ends_U - run_starts_U).astype(np.float64),
            positives_U=positives_N[run_ends_U] - positives_N[run_starts_U],
            num_rows=num_rows,
        )

    def sum_per_list(self, values_U: FloatArray) -> FloatArray:
        """Sum over the runs of each list."""
        sums_G: FloatArray = np.bincount(self.list_U, weights=values_U, minlength=len(self.size_G)).astype(np.float64)
        return sums_G

    def mean(
        self,
        values_G: FloatArray,
        *,
        is_used_G: NDArray[np.bool_],
        weights_G: FloatArray,
        needs: str,
        counts_RN: FloatArray | None,
    ) -> MetricValue:
        """Weighted mean over the lists that have a value.

        Args:
            values_G: read where ``is_used_G``.
            is_used_G: which lists have a value.
            weights_G: weight of each list.
            needs: what a list needs to have a value, for the reason why there is none.
            counts_RN: see ``Metric.compute``.
        """
        weights_G = np.where(is_used_G, weights_G, 0.0)
        above_G = weights_G * np.where(is_used_G, values_G, 0.0)
        if counts_RN is None:
            values_R = ratio(above_G.sum(keepdims=True), weights_G.sum(keepdims=True))
        else:
            counts_RG = counts_RN[:, self.first_row_G]
            values_R = ratio(counts_RG @ above_G, counts_RG @ weights_G)
        num_used = int(is_used_G.sum())
        nothing = "no row has a group" if self.num_rows else "no rows"
        return MetricValue(
            values_R=values_R,
            reason=None if num_used else (f"no group has {needs}" if len(is_used_G) else nothing),
            num_groups_used=num_used,
            num_groups_dropped=len(is_used_G) - num_used,
        )
