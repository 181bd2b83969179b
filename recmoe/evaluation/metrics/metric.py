"""Metric: a state that is fed, merged and read; exact, because it keeps the scores."""

# N rows, R resamples

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class MetricValue:
    """What a metric says, once or per resample."""

    values_R: FloatArray
    """One value per resample, or one in all; NaN where it is not defined."""
    reason: str | None = None
    """Why the value over all rows is not defined; None where it is."""
    num_groups_used: int | None = None
    """Groups that have a value of their own; None for metrics over rows."""
    num_groups_dropped: int | None = None
    """Groups left out because they have none, such as lists without a click."""


class Metric(Protocol):
    """A metric over rows of one task within its space."""

    def update(self, scores_N: FloatArray, labels_N: FloatArray, groups_N: NDArray[np.int64] | None = None) -> None:
        """Take rows in: predictions in natural units, known labels, and the group of each row where there is one."""
        ...

    def merge(self, other: Self) -> None:
        """Take in all rows of another state of the same metric."""
        ...

    def compute(self, counts_RN: FloatArray | None = None) -> MetricValue:
        """The value over all rows taken in.

        Args:
            counts_RN: how often each row counts in each resample, in the order the rows came in; the same
                number for all rows of a group where the metric is over groups. Every row once by default.
        """
        ...


def undefined(reason: str, counts_RN: FloatArray | None) -> MetricValue:
    """A value that does not exist, whatever the resample."""
    return MetricValue(values_R=np.full(1 if counts_RN is None else len(counts_RN), np.nan), reason=reason)


def ratio(above_R: FloatArray, below_R: FloatArray) -> FloatArray:
    """above / below, NaN where below is 0."""
    quotient_R: FloatArray = np.divide(above_R, below_R, out=np.full(np.shape(above_R), np.nan), where=below_R != 0)
    return quotient_R


def row_means(terms_NS: FloatArray, counts_RN: FloatArray | None) -> FloatArray:
    """means_RS over rows of S quantities that each row has by itself; one R without counts.

    Metrics that are a function of such means need no order, so a resample costs one matrix product.
    """
    if counts_RN is None:
        counts_RN = np.ones((1, len(terms_NS)))
    num_rows_R1 = counts_RN.sum(axis=1, keepdims=True)
    means_RS: FloatArray = (counts_RN @ terms_NS) / np.where(num_rows_R1 > 0, num_rows_R1, np.nan)
    return means_RS
