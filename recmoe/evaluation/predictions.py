"""Predictions: what a model said about the rows of a split, beside what was true."""

# N rows, T tasks

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recmoe.errors import EvaluationError
from recmoe.tasks.task import TaskOutput


@dataclass(frozen=True)
class Predictions:
    """N rows in file order, one column per task.

    Example: two rows, the second without a click, so that ``cvr`` has nothing to say about it::

                 ctr   cvr                    ctr  cvr                    ctr  cvr
        predicted .30   .10          labels     1    0          weights     1    1
                  .20   .05                     0    0                      1    0
    """

    task_names: tuple[str, ...]
    predictions_NT: NDArray[np.floating[Any]]
    """Natural units: probabilities, or values in the unit of the label."""
    labels_NT: NDArray[np.floating[Any]]
    """Read where the weight is not 0."""
    weights_NT: NDArray[np.floating[Any]]
    """1 where the row lies in the task's space and its label is known, else 0."""
    spaces: Mapping[str, str]
    """By task: ``all``, or the label column that is 1 in its space."""
    kinds: Mapping[str, TaskOutput]
    """By task: what its prediction is, such as a probability or an expected value."""
    groups_N: NDArray[np.int64] | None = None
    """Group of each row (request, session, user), ``NO_GROUP`` for a row without one; None where the log has none."""
    slices: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Raw columns by which metrics are cut."""
    measures: Mapping[str, Mapping[str, NDArray[np.floating[Any]]]] = field(default_factory=dict)
    """By task and name, what the task measures itself in every row: the metric is the mean over its rows."""

    def __post_init__(self) -> None:
        shape = (len(self.predictions_NT), len(self.task_names))
        for array_NT in (self.predictions_NT, self.labels_NT, self.weights_NT):
            assert array_NT.shape == shape, f"expected {shape}, got {array_NT.shape}"
        assert all(len(column) == shape[0] for column in self.slices.values())

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.predictions_NT)

    def in_space(self, task: str) -> NDArray[np.bool_]:
        """Which rows count for a task."""
        mask_N: NDArray[np.bool_] = self.weights_NT[:, self.task_names.index(task)] > 0
        return mask_N

    def of_task(self, task: str, mask_N: NDArray[np.bool_] | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
        """scores and labels of the rows that count for a task, or of the given rows.

        Raises:
            EvaluationError: a prediction is NaN or infinite.
        """
        column = self.task_names.index(task)
        mask_N = self.in_space(task) if mask_N is None else mask_N
        scores, labels = self.predictions_NT[mask_N, column], self.labels_NT[mask_N, column]
        bad = ~np.isfinite(scores)
        if bad.any():
            row = np.flatnonzero(mask_N)[np.argmax(bad)]
            raise EvaluationError(
                f"task {task}: {bad.sum()} of {len(scores)} predictions are not finite, the first in row {row}; "
                "the model has diverged: lower the learning rate, or look for extreme values among the features"
            )
        return scores, labels

    def means(self) -> dict[str, float]:
        """The mean prediction of each task over all rows, in its space or not; without those that are not finite."""
        if self.num_rows == 0:
            return {}
        means_T = self.predictions_NT.mean(axis=0, dtype=np.float64).tolist()
        by_task = zip(self.task_names, means_T, strict=True)
        return {name: mean for name, mean in by_task if math.isfinite(mean)}

    def take(self, rows: NDArray[np.int64]) -> "Predictions":
        """Some of the rows, by number."""
        return replace(
            self,
            predictions_NT=self.predictions_NT[rows],
            labels_NT=self.labels_NT[rows],
            weights_NT=self.weights_NT[rows],
            groups_N=None if self.groups_N is None else self.groups_N[rows],
            slices={name: column[rows] for name, column in self.slices.items()},
            measures={
                task: {name: column[rows] for name, column in of_task.items()}
                for task, of_task in self.measures.items()
            },
        )

    def take_tasks(self, places: Sequence[int]) -> "Predictions":
        """Some of the tasks, by column."""
        columns = list(places)
        return replace(
            self,
            task_names=tuple(self.task_names[place] for place in columns),
            predictions_NT=self.predictions_NT[:, columns],
            labels_NT=self.labels_NT[:, columns],
            weights_NT=self.weights_NT[:, columns],
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """The rows of several parts of one split, in order; at least one part."""
        first = parts[0]
        assert all(part.task_names == first.task_names for part in parts)
        return cls(
            task_names=first.task_names,
            predictions_NT=np.concatenate([part.predictions_NT for part in parts]),
            labels_NT=np.concatenate([part.labels_NT for part in parts]),
            weights_NT=np.concatenate([part.weights_NT for part in parts]),
            spaces=first.spaces,
            kinds=first.kinds,
            groups_N=None
            if first.groups_N is None
            else np.concatenate([part.groups_N for part in parts if part.groups_N is not None]),
            slices={name: np.concatenate([part.slices[name] for part in parts]) for name in first.slices},
            measures={
                task: {name: np.concatenate([part.measures[task][name] for part in parts]) for name in of_task}
                for task, of_task in first.measures.items()
            },
        )
