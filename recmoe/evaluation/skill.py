"""skill(): how much better than a constant the predictions are, task by task and on the whole."""

# N rows of one task

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from recmoe.evaluation.metrics.auc import Auc
from recmoe.evaluation.predictions import Predictions
from recmoe.tasks.error import ErrorMeasure
from recmoe.tasks.task import has_binary_label

SCORE = "score"
"""What the mean over all tasks is called where a metric is named."""
PRIOR_CASES = 100.0
"""Cases of the rarer label at which a task counts half: with few, its number is mostly chance."""


@dataclass(frozen=True)
class TaskSkill:
    """One task of a validation."""

    value: float
    """Share of a constant's loss that the model saves: 1 is perfect, 0 no better than a constant, below 0 worse."""
    weight: float
    """Between 0 and 1, more for tasks with more cases."""


@dataclass(frozen=True)
class Skill:
    """All tasks whose labels vary."""

    tasks: Mapping[str, TaskSkill]

    @property
    def score(self) -> float:
        """Σ weight · value / Σ weight; NaN where no task's labels vary."""
        total = sum(task.weight for task in self.tasks.values())
        return sum(task.weight * task.value for task in self.tasks.values()) / total if total else math.nan


def skill(predictions: Predictions, *, weights: Mapping[str, float], errors: Mapping[str, ErrorMeasure]) -> Skill:
    """The skill of every task that is trained, in its space::

        skill = 1 − loss of the model / loss of the best constant

    The loss is the one that the kind of prediction is best in (``errors``): the cross-entropy of a probability (so that
    skill is 1 − normalized entropy), the squared error of an expected value (so that it is R²). Of a score, which only
    orders, it is the share of pairs in the wrong order: skill is 2 · AUC − 1.

    Args:
        predictions: of a validation split.
        weights: by task, the factor of its loss; a task of 0 does not count.
        errors: by task, the loss; not read of scores.
    """
    found: dict[str, TaskSkill] = {}
    for task in predictions.task_names:
        scores_N, labels_N = predictions.of_task(task)
        if not weights[task] or not len(labels_N):
            continue
        is_binary = has_binary_label(predictions.kinds[task])
        num_positive = int(labels_N.sum()) if is_binary else len(labels_N)
        num_cases = min(num_positive, len(labels_N) - num_positive) if is_binary else num_positive
        if labels_N.min() == labels_N.max():
            continue
        if predictions.kinds[task] == "score":
            value = 2.0 * _auc(scores_N, labels_N) - 1.0
        else:
            value = _saved(errors[task], torch.from_numpy(scores_N).double(), torch.from_numpy(labels_N).double())
        found[task] = TaskSkill(value=value, weight=num_cases / (num_cases + PRIOR_CASES))
    return Skill(found)


def _saved(error: ErrorMeasure, scores_N: Tensor, labels_N: Tensor) -> float:
    constant_N = error.constant(labels_N).expand(len(labels_N))
    return 1.0 - float(error.losses(scores_N, labels_N).mean() / error.losses(constant_N, labels_N).mean())


def _auc(scores_N: NDArray[Any], labels_N: NDArray[Any]) -> float:
    state = Auc()
    state.update(scores_N, labels_N)
    return float(state.compute().values_R[0])
