"""Curves: the points behind the plots of a report."""

# N rows, P points, U bins

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recmoe.evaluation.metrics.ece import equal_mass_starts
from recmoe.evaluation.metrics.metric import FloatArray

MAX_POINTS = 400
"""Points of a curve: more than a plot has pixels, less than a page should carry."""


@dataclass(frozen=True)
class Curve:
    """A line from (0, 0) to (1, 1)."""

    x_P: FloatArray
    y_P: FloatArray


@dataclass(frozen=True)
class ReliabilityBins:
    """Bins of equal mass: what was predicted in each, and what came."""

    predicted_U: FloatArray
    """Mean prediction."""
    observed_U: FloatArray
    """Mean label."""
    low_U: FloatArray
    """Lower end of the 95 % interval of the mean label."""
    high_U: FloatArray
    """Upper end."""
    num_rows_U: NDArray[np.int64]


def roc_curve(scores_N: FloatArray, labels_N: FloatArray) -> Curve:
    """Share of negatives and of positives scored at least as high as each threshold, from 0 to 1."""
    ends = _run_ends(scores_N)
    positives = np.cumsum(labels_N[_descending(scores_N)])[ends]
    negatives = ends + 1 - positives
    return _thinned(negatives / negatives[-1], positives / positives[-1])


def gain_curve(scores_N: FloatArray, labels_N: FloatArray) -> Curve:
    """Share of all labels found in the best-scored share of rows; labels are not negative and not all 0."""
    ends = _run_ends(scores_N)
    found = np.cumsum(labels_N[_descending(scores_N)])[ends]
    return _thinned((ends + 1) / len(scores_N), found / found[-1])


def reliability_bins(
    scores_N: FloatArray, labels_N: FloatArray, *, num_bins: int = 20, is_binary: bool = True
) -> ReliabilityBins:
    """Mean prediction and mean label in bins of equal mass; rows of equal prediction share a bin.

    The interval of the mean label is Wilson's for binary labels, else ± 1.96 standard errors.
    """
    order_N = np.argsort(scores_N, kind="stable")
    scores_N, labels_N = scores_N[order_N], labels_N[order_N]
    run_starts = np.flatnonzero(np.append(True, scores_N[1:] != scores_N[:-1]))
    starts_U = equal_mass_starts(len(scores_N), run_starts, num_bins=num_bins)
    num_rows_U = np.diff(np.append(starts_U, len(scores_N)))
    predicted_U = np.add.reduceat(scores_N, starts_U) / num_rows_U
    observed_U = np.add.reduceat(labels_N, starts_U) / num_rows_U
    if is_binary:
        low_U, high_U = wilson(observed_U, num_rows_U)
    else:
        squares_U = np.add.reduceat(labels_N**2, starts_U) / num_rows_U
        error_U = 1.96 * np.sqrt(np.maximum(squares_U - observed_U**2, 0) / num_rows_U)
        low_U, high_U = observed_U - error_U, observed_U + error_U
    return ReliabilityBins(predicted_U, observed_U, low_U, high_U, num_rows_U.astype(np.int64))


def wilson(rate_U: FloatArray, num_rows_U: NDArray[np.intp]) -> tuple[FloatArray, FloatArray]:
    """95 % interval of a share, Wilson 1927: unlike ± 1.96 standard errors it stays within 0 and 1."""
    z2 = 1.96**2
    centre_U = (rate_U + z2 / (2 * num_rows_U)) / (1 + z2 / num_rows_U)
    half_U = 1.96 / (1 + z2 / num_rows_U) * np.sqrt(rate_U * (1 - rate_U) / num_rows_U + z2 / (4 * num_rows_U**2))
    return centre_U - half_U, centre_U + half_U


def _descending(scores_N: FloatArray) -> NDArray[np.intp]:
    return np.argsort(-scores_N, kind="stable")


def _run_ends(scores_N: FloatArray) -> NDArray[np.intp]:
    """Last place of each run of equal scores, in descending order: a threshold cannot part a tie."""
    sorted_N = scores_N[_descending(scores_N)]
    return np.flatnonzero(np.append(sorted_N[1:] != sorted_N[:-1], True))


def _thinned(x_P: FloatArray, y_P: FloatArray) -> Curve:
    """At most ``MAX_POINTS`` of the points, those that stand closest to even steps along the curve, and (0, 0)."""
    x_P, y_P = np.append(0.0, x_P), np.append(0.0, y_P)
    if len(x_P) > MAX_POINTS:
        # Even steps of x + y follow both the steep and the flat part.
        keep = np.unique(np.searchsorted(x_P + y_P, np.linspace(0, x_P[-1] + y_P[-1], MAX_POINTS)))
        keep = np.minimum(keep, len(x_P) - 1)
        x_P, y_P = x_P[keep], y_P[keep]
    return Curve(x_P, y_P)
