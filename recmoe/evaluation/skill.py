"""skill(): how much better than a constant the predictions are, task by task and on the whole."""

# N rows of one task

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from recmoe.evaluation.predictions import Predictions
from recmoe.features.transforms import Floats
from recmoe.tasks.task import TaskOutput

SCORE = "score"
"""What the mean over all tasks is called where a metric is named."""
PRIOR_CASES = 100.0
"""Cases of the rarer label at which a task counts half: with few, its number is mostly chance."""
SMALLEST_PROBABILITY = 1e-7


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


def skill(
    predictions: Predictions,
    *,
    weights: Mapping[str, float],
    on_scale: Callable[[str, Floats], Floats] = lambda _, values: values,
) -> Skill:
    """The skill of every task that is trained, in its space::

        skill = 1 − loss of the model / loss of the best constant

    The loss is the cross-entropy of a probability (so that skill is 1 − normalized entropy) and the squared error of a
    value on the scale on which it is fitted (so that it is R²).

    Args:
        predictions: of a validation split.
        weights: by task, the factor of its loss; a task of 0 does not count.
        on_scale: (task, values) → the values on the scale of the task's error, such as log1p.
    """
    found: dict[str, TaskSkill] = {}
    for task in predictions.task_names:
        scores_N, labels_N = predictions.of_task(task)
        if not weights[task] or not len(labels_N):
            continue
        kind = predictions.kinds[task]
        if kind == "regression":
            scores_N, labels_N = on_scale(task, scores_N), on_scale(task, labels_N)
        constant = _loss(np.full(len(labels_N), labels_N.mean(dtype=np.float64)), labels_N, kind)
        if constant <= 0:
            continue
        num_positive = int(labels_N.sum()) if kind == "binary" else len(labels_N)
        num_cases = min(num_positive, len(labels_N) - num_positive) if kind == "binary" else num_positive
        found[task] = TaskSkill(
            value=1.0 - _loss(scores_N, labels_N, kind) / constant, weight=num_cases / (num_cases + PRIOR_CASES)
        )
    return Skill(found)


def _loss(scores_N: Floats, labels_N: Floats, kind: TaskOutput) -> float:
    if kind == "regression":
        return float(np.square(scores_N.astype(np.float64) - labels_N).mean())
    p_N = np.clip(scores_N.astype(np.float64), SMALLEST_PROBABILITY, 1.0 - SMALLEST_PROBABILITY)
    return float(-np.where(labels_N > 0.5, np.log(p_N), np.log1p(-p_N)).mean()) if 0 < labels_N.mean() < 1 else 0.0
