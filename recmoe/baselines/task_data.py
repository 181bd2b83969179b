"""TaskData: the rows that one task learns from, sampled down where there are many, and its scale."""

# M rows of the task

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recmoe.tasks.task import LabelKind

MAX_TRAIN_ROWS = 200_000
"""Rows that one baseline of one task learns from."""


@dataclass(frozen=True)
class TaskData:
    """What a baseline learns: row numbers, targets and how many rows each one stands for."""

    output: LabelKind
    rows_M: NDArray[np.int64]
    """Numbers of rows in the split that was read."""
    targets_M: NDArray[np.float64]
    """Labels, on the scale of the task's error."""
    weights_M: NDArray[np.float64]
    """Above 1 where rows were left out, so that the mean of the label stays what it was."""

    @property
    def mean(self) -> float:
        """Weighted mean of the targets; 0 without rows."""
        return float(np.average(self.targets_M, weights=self.weights_M)) if len(self.rows_M) else 0.0

    @property
    def is_constant(self) -> bool:
        """Whether there is nothing to learn."""
        return len(self.rows_M) == 0 or bool((self.targets_M == self.targets_M[0]).all())

    def select(self, chosen_M: NDArray[Any]) -> "TaskData":
        """Some of the rows."""
        return TaskData(self.output, self.rows_M[chosen_M], self.targets_M[chosen_M], self.weights_M[chosen_M])

    def loss(self, predicted_M: NDArray[np.float64]) -> float:
        """Weighted mean of the cross-entropy, or of the squared error on the task's scale."""
        if self.output == "regression":
            return float(np.average((predicted_M - self.targets_M) ** 2, weights=self.weights_M))
        p_M = predicted_M.clip(1e-9, 1 - 1e-9)
        losses_M = -np.where(self.targets_M > 0.5, np.log(p_M), np.log1p(-p_M))
        return float(np.average(losses_M, weights=self.weights_M))


def sampled(data: TaskData, *, most: int = MAX_TRAIN_ROWS, seed: int) -> TaskData:
    """At most so many rows. Of a binary task the rarer label stays whole as long as it fills no more than half.

    Rows that stay stand for those that were left out, by their weight: probabilities need no correction.
    """
    num_rows = len(data.rows_M)
    if num_rows <= most:
        return data
    generator = np.random.default_rng(seed)
    is_one_M = data.targets_M > 0.5 if data.output == "binary" else np.zeros(num_rows, dtype=bool)
    num_ones = int(is_one_M.sum())
    few = min(num_ones, num_rows - num_ones)
    kept_few = min(few, most // 2)
    quotas = {True: kept_few, False: most - kept_few}
    if num_ones > num_rows - num_ones:
        quotas = {True: most - kept_few, False: kept_few}
    chosen, weights = [], []
    for label, quota in quotas.items():
        places = np.flatnonzero(is_one_M == label)
        if quota:
            chosen.append(generator.choice(places, size=quota, replace=False))
            weights.append(np.full(quota, len(places) / quota))
    places_M = np.concatenate(chosen)
    order = np.argsort(places_M)
    kept = data.select(places_M[order])
    return TaskData(kept.output, kept.rows_M, kept.targets_M, kept.weights_M * np.concatenate(weights)[order])
