"""Bootstrap: how far a metric would move if the rows had been drawn again.

Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapters 6 and 13 (percentile interval).
"""

# N rows, G groups, R resamples

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from recmoe.evaluation.metrics.metric import FloatArray, Metric
from recmoe.features.batch import NO_GROUP

CHUNK_SIZE = 2_000_000
"""Counts held at a time, 16 MB: resamples × rows."""


def draw_counts(
    *, num_rows: int, groups_N: NDArray[np.int64] | None, num_resamples: int, seed: int
) -> Iterator[FloatArray]:
    """How often each row is drawn in each resample, as chunks of counts_RN.

    N rows are drawn with replacement. Where rows have groups, whole groups are drawn instead, as many as there
    are: rows of one list are not independent, and an interval from single rows would be too narrow. A row without
    a group is drawn by itself.
    """
    generator = np.random.default_rng(seed)
    unit_N: NDArray[np.intp] | None = None
    num_units = num_rows
    if groups_N is not None:
        values, unit_N = np.unique(groups_N, return_inverse=True)
        num_units = len(values)
        is_alone_N = groups_N == NO_GROUP
        num_alone = int(is_alone_N.sum())
        if num_alone:
            # The first of them keeps the unit that they would share.
            unit_N[np.flatnonzero(is_alone_N)[1:]] = np.arange(num_units, num_units + num_alone - 1)
            num_units += num_alone - 1
    chunk = max(1, CHUNK_SIZE // max(1, num_rows))
    for start in range(0, num_resamples, chunk):
        counts = np.empty((min(chunk, num_resamples - start), num_units))
        for count_U in counts:
            count_U[:] = np.bincount(generator.integers(num_units, size=num_units), minlength=num_units)
        yield counts if unit_N is None else counts[:, unit_N]


def intervals(
    metrics: Mapping[str, Metric],
    *,
    num_rows: int,
    groups_N: NDArray[np.int64] | None,
    num_resamples: int,
    seed: int,
) -> dict[str, tuple[float, float] | None]:
    """95 % percentile interval of each metric, all from the same resamples.

    The same rows and seed give the same resamples, so models that scored the same rows can be compared pairwise.

    Args:
        metrics: states that have taken in the same rows in the same order.

    Returns:
        (low, high) over the resamples in which the metric is defined; None where those are fewer than half.
    """
    values = resampled(metrics, num_rows=num_rows, groups_N=groups_N, num_resamples=num_resamples, seed=seed)
    return {name: percentiles(values_R) for name, values_R in values.items()}


def resampled(
    metrics: Mapping[str, Metric],
    *,
    num_rows: int,
    groups_N: NDArray[np.int64] | None,
    num_resamples: int,
    seed: int,
) -> dict[str, FloatArray]:
    """values_R of each metric, all from the same resamples; none without rows."""
    if num_rows == 0 or num_resamples == 0:
        return {name: np.empty(0) for name in metrics}
    values: dict[str, list[FloatArray]] = {name: [] for name in metrics}
    for counts_RN in draw_counts(num_rows=num_rows, groups_N=groups_N, num_resamples=num_resamples, seed=seed):
        for name, metric in metrics.items():
            values[name].append(metric.compute(counts_RN).values_R)
    return {name: np.concatenate(chunks) for name, chunks in values.items()}


def percentiles(values_R: FloatArray) -> tuple[float, float] | None:
    """95 % of the resamples in which a metric is defined; None where those are fewer than half, or there are none."""
    defined = values_R[np.isfinite(values_R)]
    if len(defined) == 0 or len(defined) * 2 < len(values_R):
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)
