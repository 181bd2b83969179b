"""What each feature alone tells of each task: models of one feature, fitted on one half, measured on the other.

So an id that occurs once tells nothing, however well it could be learned by heart.
"""

# N rows, n values, K different values, T tasks, U runs of equal scores

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recmoe.onboarding.column_values import Bools, ColumnValues
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.task import ALL_ROWS, LabelKind, label_kind

Floats = NDArray[np.float64]

PRIOR_ROWS = 10.0
"""Rows with the mean label that every value is given beside its own: few rows are little evidence."""


@dataclass(frozen=True)
class TaskRows:
    """What one task asks of the rows of a sample."""

    name: str
    label: str
    """The name with its space, in words."""
    kind: LabelKind
    label_N: Floats
    """0 or 1; for a regression the rank among the rows that count, from 0 to 1."""
    counts_N: Bools
    """Rows of the task's space with a known label."""

    @property
    def num_rows(self) -> int:
        """Rows that count."""
        return int(self.counts_N.sum())


@dataclass(frozen=True)
class Alone:
    """How well one feature alone predicts one task."""

    value: float
    """AUC, or the rank correlation of a regression; NaN where it is not defined."""
    score_N: NDArray[np.float32]
    """The one-feature model's score, without the mean: log-odds for a binary task, a rank for a regression."""


def task_rows(tasks: TaskSet, labels_NT: Floats, weights_NT: Floats) -> list[TaskRows]:
    """The tasks of a sample from ``TaskSet.targets``."""
    asked = []
    for place, name in enumerate(tasks.names):
        kind, space, counts_N = label_kind(tasks.kinds[name]), tasks.spaces[name], weights_NT[:, place] > 0
        label_N = labels_NT[:, place].astype(np.float64)
        if kind == "regression":
            label_N = _ranks(label_N, counts_N)
        label = name if space == ALL_ROWS else f"{name} among {space}"
        asked.append(TaskRows(name, label, kind, label_N, counts_N))
    return asked


def whether_any(tasks: TaskSet, labels_NT: Floats, weights_NT: Floats) -> list[TaskRows]:
    """For each regression whose labels begin at 0, whether there is any amount: what a flag could tell of it."""
    asked = []
    for place, name in enumerate(tasks.names):
        counts_N = weights_NT[:, place] > 0
        label_N = labels_NT[:, place].astype(np.float64)
        if label_kind(tasks.kinds[name]) == "regression" and counts_N.any() and label_N[counts_N].min() == 0:
            asked.append(TaskRows(name, f"{name} > 0", "binary", (label_N > 0).astype(np.float64), counts_N))
    return asked


def alone(values: ColumnValues, task: TaskRows, is_second_N: Bools) -> Alone:
    """Fit the mean label of each value on each half, and measure it on the other."""
    row_n = slice(None) if values.row_n is None else values.row_n
    counts_n = task.counts_N[row_n]
    # One count per value and half.
    place_n = (2 * values.code_n + is_second_N[row_n])[counts_n]
    label_n, num_places = task.label_N[row_n][counts_n], 2 * values.num_codes
    num_rows_K2: Floats = np.bincount(place_n, minlength=num_places).reshape(-1, 2).astype(np.float64)
    total_K2 = np.asarray(np.bincount(place_n, label_n, minlength=num_places).reshape(-1, 2), np.float64)
    score_N = np.zeros(len(task.counts_N), np.float32)
    measured = []
    for half, is_here_N in enumerate((~is_second_N, is_second_N)):
        fitted = 1 - half
        score_K = _scores(num_rows_K2[:, fitted], total_K2[:, fitted], task, is_second_N == bool(fitted))
        if values.row_n is None:
            score_N[is_here_N] = score_K[values.code_n[is_here_N]]
        else:
            sum_N = np.bincount(values.row_n, score_K[values.code_n], minlength=len(score_N))
            score_N[is_here_N] = (sum_N / np.bincount(values.row_n, minlength=len(score_N)))[is_here_N]
        if task.kind == "binary" and values.row_n is None:
            positive_K = total_K2[:, half]
            measured.append(auc(score_K, positive_K, num_rows_K2[:, half] - positive_K))
        else:
            measured.append(_measure(score_N, task, is_here_N))
    return Alone(float(np.mean(measured)), score_N)


def auc(score_K: NDArray[np.floating], positive_K: Floats, negative_K: Floats) -> float:
    """Area under the ROC curve of scores that stand for some positive and some negative rows; NaN without either."""
    num_pairs = positive_K.sum() * negative_K.sum()
    if num_pairs == 0:
        return float("nan")
    order_K = np.argsort(score_K, kind="stable")
    ordered_K = score_K[order_K]
    starts_U = np.flatnonzero(np.append(True, ordered_K[1:] != ordered_K[:-1]))
    positive_U = np.add.reduceat(positive_K[order_K], starts_U)
    negative_U = np.add.reduceat(negative_K[order_K], starts_U)
    below_U = np.cumsum(negative_U) - negative_U
    return float(positive_U @ (below_U + negative_U / 2) / num_pairs)


def auc_error(value: float, num_positive: int, num_negative: int) -> float:
    """Standard error of an AUC: Hanley and McNeil, Radiology 1982, https://doi.org/10.1148/radiology.143.1.7063747."""
    both_positive, both_negative = value / (2 - value), 2 * value**2 / (1 + value)
    variance = (
        value * (1 - value)
        + (num_positive - 1) * (both_positive - value**2)
        + (num_negative - 1) * (both_negative - value**2)
    ) / (num_positive * num_negative)
    return float(np.sqrt(max(variance, 0.0)))


def measure(score_N: NDArray[np.floating], task: TaskRows, is_second_N: Bools) -> float:
    """AUC or rank correlation of scores, the mean over both halves; NaN where it is not defined."""
    return float(np.mean([_measure(score_N, task, ~is_second_N), _measure(score_N, task, is_second_N)]))


def _measure(score_N: NDArray[np.floating], task: TaskRows, is_here_N: Bools) -> float:
    counts_N = task.counts_N & is_here_N
    score_n, label_n = score_N[counts_N], task.label_N[counts_N]
    if task.kind == "binary":
        return auc(score_n, label_n, 1 - label_n)
    if len(label_n) < 2 or np.ptp(label_n) == 0:
        return float("nan")
    return 0.0 if np.ptp(score_n) == 0 else float(np.corrcoef(score_n, label_n)[0, 1])


def _scores(num_rows_K: Floats, total_K: Floats, task: TaskRows, is_fitted_N: Bools) -> Floats:
    """What a half teaches of each value, less its mean."""
    labels = task.label_N[task.counts_N & is_fitted_N]
    mean = float(labels.mean()) if len(labels) else 0.0
    mean_K = (total_K + PRIOR_ROWS * mean) / (num_rows_K + PRIOR_ROWS)
    if task.kind == "regression":
        return mean_K - mean
    if mean in (0.0, 1.0):
        return np.zeros(len(mean_K))
    score_K: Floats = np.log(mean_K / (1 - mean_K)) - np.log(mean / (1 - mean))
    return score_K


def _ranks(label_N: Floats, counts_N: Bools) -> Floats:
    """Ranks from 0 to 1 of the rows that count, equal labels at their mean rank; 0 elsewhere."""
    rank_N = np.zeros(len(label_N))
    _, place_n, count = np.unique(label_N[counts_N], return_inverse=True, return_counts=True)
    if len(count):
        rank_N[counts_N] = ((np.cumsum(count) - (count + 1) / 2) / max(count.sum() - 1, 1))[place_n]
    return rank_N
