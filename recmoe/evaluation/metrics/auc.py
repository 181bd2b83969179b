"""Area under the ROC curve."""

# N rows, P positive rows, M negative rows, R resamples, U runs of equal scores

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from recmoe.config import Config
from recmoe.evaluation.metrics.metric import FloatArray, MetricValue, ratio, undefined
from recmoe.evaluation.metrics.scored_rows import ScoredRows
from recmoe.tasks.task import Best, TaskOutput


class Auc:
    """Probability that a positive row is scored above a negative one; ties count one half.

    Exact, over all rows at once: not a mean over batches, not from bins.
    """

    def __init__(self) -> None:
        self.rows = ScoredRows()

    def update(self, scores_N: FloatArray, labels_N: FloatArray, groups_N: NDArray[np.int64] | None = None) -> None:
        """See ``Metric``."""
        self.rows.update(scores_N, labels_N, groups_N)

    def merge(self, other: Self) -> None:
        """See ``Metric``."""
        self.rows.merge(other.rows)

    def compute(self, counts_RN: FloatArray | None = None) -> MetricValue:
        """See ``Metric``; not defined without both positives and negatives."""
        reason = self.rows.undefined_reason()
        if reason:
            return undefined(reason, counts_RN)
        # Only negatives are summed up, and read where positives stand: a resample costs about one pass over the rows.
        order = self.rows.by_score
        is_positive_N = self.rows.labels_N[order.order_N] > 0.5
        negatives_before_N = np.r_[0, np.cumsum(~is_positive_N)]
        run_ends_U = np.append(order.starts_U[1:], len(is_positive_N))
        run_P = np.searchsorted(order.starts_U, np.flatnonzero(is_positive_N), side="right") - 1
        below_P = negatives_before_N[order.starts_U[run_P]]
        below_or_tied_P = negatives_before_N[run_ends_U[run_P]]
        if counts_RN is None:
            counts_RN = np.ones((1, len(is_positive_N)))
        positives_RP = counts_RN[:, order.order_N[is_positive_N]]
        negatives_RM = np.zeros((len(counts_RN), negatives_before_N[-1] + 1))
        np.cumsum(counts_RN[:, order.order_N[~is_positive_N]], axis=1, out=negatives_RM[:, 1:])
        wins_R = np.einsum("rp,rp->r", positives_RP, negatives_RM[:, below_P])
        wins_R += np.einsum("rp,rp->r", positives_RP, negatives_RM[:, below_or_tied_P])
        return MetricValue(ratio(wins_R / 2, positives_RP.sum(axis=1) * negatives_RM[:, -1]))


class AucConfig(Config):
    """Area under the ROC curve."""

    outputs: ClassVar[tuple[TaskOutput, ...]] = ("binary", "score")
    needs_groups: ClassVar[bool] = False
    best: ClassVar[Best] = "highest"

    kind: Literal["auc"] = "auc"

    @property
    def name(self) -> str:
        """Its name in a report."""
        return self.kind

    def build(self) -> Auc:
        """An empty state."""
        return Auc()
