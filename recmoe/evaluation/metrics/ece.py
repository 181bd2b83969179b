"""Expected calibration error: whether each level of prediction is right on average.

Naeini et al., AAAI 2015, https://doi.org/10.1609/aaai.v29i1.9602, with bins of equal mass.
"""

# N rows, R resamples, U bins

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from recmoe.config import Config
from recmoe.evaluation.metrics.metric import FloatArray, MetricValue, ratio, undefined
from recmoe.evaluation.metrics.scored_rows import ScoredRows
from recmoe.tasks.task import Best, TaskOutput


def equal_mass_starts(num_rows: int, run_starts_U: NDArray[np.intp], *, num_bins: int) -> NDArray[np.intp]:
    """Where bins begin among sorted rows, each moved back to the beginning of its run of equal scores."""
    even = np.arange(num_bins) * num_rows // num_bins
    return np.unique(run_starts_U[np.searchsorted(run_starts_U, even, side="right") - 1])


class Ece:
    """Σ over bins of |Σ predictions − Σ labels| / N, over bins of equal mass.

    Each bin holds as many rows as the others, by rank of the prediction; rows of equal prediction stay
    together, so that there may be fewer bins. (Bins of equal width would put nearly all rows of a rare
    label into the first one.) Noise adds to the absolute value, in resamples twice over: the interval
    of a well calibrated model lies above its value.

    Args:
        num_bins: bins at most.
    """

    def __init__(self, *, num_bins: int) -> None:
        self.num_bins = num_bins
        self.rows = ScoredRows()

    def update(self, scores_N: FloatArray, labels_N: FloatArray, groups_N: NDArray[np.int64] | None = None) -> None:
        """See ``Metric``."""
        self.rows.update(scores_N, labels_N, groups_N)

    def merge(self, other: Self) -> None:
        """See ``Metric``."""
        self.rows.merge(other.rows)

    def compute(self, counts_RN: FloatArray | None = None) -> MetricValue:
        """See ``Metric``; bins are those of all rows, also in resamples. Not defined without rows."""
        if self.rows.labels_N.size == 0:
            return undefined("no rows", counts_RN)
        order_N = self.rows.by_score.order_N
        excess_N = (self.rows.scores_N - self.rows.labels_N)[order_N]
        starts_U = equal_mass_starts(len(order_N), self.rows.by_score.starts_U, num_bins=self.num_bins)
        counts_RN = np.ones((1, len(order_N))) if counts_RN is None else counts_RN[:, order_N]
        ends_U = np.append(starts_U[1:], len(order_N))
        sums_R = np.zeros(len(counts_RN))
        for start, end in zip(starts_U, ends_U, strict=True):
            sums_R += np.abs(counts_RN[:, start:end] @ excess_N[start:end])
        return MetricValue(ratio(sums_R, counts_RN.sum(axis=1)))


class EceConfig(Config):
    """Expected calibration error over bins of equal mass. Noise raises it, so its interval may lie above the value."""

    outputs: ClassVar[tuple[TaskOutput, ...]] = ("binary",)
    needs_groups: ClassVar[bool] = False
    best: ClassVar[Best] = "lowest"

    kind: Literal["ece"] = "ece"
    num_bins: PositiveInt = 20
    """Bins at most, each with as many rows as the others."""

    @property
    def name(self) -> str:
        """Its name in a report."""
        return self.kind

    def build(self) -> Ece:
        """An empty state."""
        return Ece(num_bins=self.num_bins)
