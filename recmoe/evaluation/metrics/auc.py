"""Area under the ROC curve."""

# N rows, R resamples, U runs of equal scores

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from recmoe.config import Config
from recmoe.evaluation.metrics.metric import Best, FloatArray, MetricValue, ratio, undefined
from recmoe.evaluation.metrics.scored_rows import ScoredRows
from recmoe.tasks.task import TaskOutput


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
        order = self.rows.by_score
        labels_N = self.rows.labels_N[order.order_N]
        counts_RN = np.ones((1, len(labels_N))) if counts_RN is None else counts_RN[:, order.order_N]
        positives_RU = np.add.reduceat(counts_RN * labels_N, order.starts_U, axis=1)
        negatives_RU = np.add.reduceat(counts_RN, order.starts_U, axis=1) - positives_RU
        below_RU = np.cumsum(negatives_RU, axis=1)
        num_pairs_R = positives_RU.sum(axis=1) * below_RU[:, -1]
        below_RU -= negatives_RU / 2
        return MetricValue(ratio(np.einsum("ru,ru->r", positives_RU, below_RU), num_pairs_R))


class AucConfig(Config):
    """Area under the ROC curve."""

    outputs: ClassVar[tuple[TaskOutput, ...]] = ("binary",)
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
