"""skill: the share of a constant's loss that a model saves, and its mean over tasks."""

import math
from typing import Any

import numpy as np
import pytest

from recmoe.evaluation.predictions import Predictions
from recmoe.evaluation.skill import PRIOR_CASES, skill


def predictions(**tasks: tuple[str, list[float], list[float]]) -> Predictions:
    """Tasks as (kind, predictions, labels); a label of NaN does not count."""
    labels_NT = np.array([labels for _, _, labels in tasks.values()]).T
    return Predictions(
        task_names=tuple(tasks),
        predictions_NT=np.array([scores for _, scores, _ in tasks.values()]).T,
        labels_NT=np.nan_to_num(labels_NT),
        weights_NT=(~np.isnan(labels_NT)).astype(float),
        spaces=dict.fromkeys(tasks, "all"),
        kinds={name: kind for name, (kind, _, _) in tasks.items()},  # type: ignore[misc]
    )


def found(rows: Predictions, **options: Any) -> Any:
    return skill(rows, **{"weights": dict.fromkeys(rows.task_names, 1.0), **options})


def test_probability_saves_one_minus_its_normalized_entropy() -> None:
    rows = predictions(click=("binary", [0.8, 0.2, 0.2, 0.8], [1, 0, 0, 1]))

    click = found(rows).tasks["click"]

    # A constant of one half loses log 2 per row, the model log 1.25.
    assert click.value == pytest.approx(1 - math.log(1.25) / math.log(2))


def test_base_rate_saves_nothing_and_a_worse_guess_less() -> None:
    base = predictions(click=("binary", [0.25] * 4, [1, 0, 0, 0]))
    worse = predictions(click=("binary", [0.75] * 4, [1, 0, 0, 0]))

    assert found(base).score == pytest.approx(0.0)
    assert found(worse).score < 0


def test_value_saves_its_r_squared_on_the_scale_of_its_error() -> None:
    rows = predictions(watch=("regression", [0.0, 0.0, math.e - 1], [0.0, 0.0, math.e**2 - 1]))

    watch = found(rows, on_scale=lambda _, values: np.log1p(values)).tasks["watch"]

    # Labels 0, 0, 2 vary by 8/9 around 2/3; the model misses the last by 1.
    assert watch.value == pytest.approx(1 - (1 / 3) / (8 / 9))


def test_task_with_few_positives_counts_less() -> None:
    labels = [1.0] * 50 + [0.0] * 450
    rare = [1.0] * 5 + [0.0] * 495
    rows = predictions(click=("binary", [0.1] * 500, labels), buy=("binary", [0.5] * 500, rare))

    tasks = found(rows).tasks

    assert tasks["click"].weight == 50 / (50 + PRIOR_CASES)
    assert tasks["buy"].weight == 5 / (5 + PRIOR_CASES)
    expected = tasks["buy"].weight * tasks["buy"].value / (tasks["buy"].weight + tasks["click"].weight)
    assert found(rows).score == pytest.approx(expected)


def test_tasks_that_do_not_vary_or_are_not_trained_are_left_out() -> None:
    rows = predictions(
        never=("binary", [0.1, 0.2], [0, 0]),
        aside=("binary", [0.1, 0.2], [0, 1]),
        same=("regression", [1.0, 2.0], [3.0, 3.0]),
        unknown=("binary", [0.1, 0.2], [math.nan, math.nan]),
    )

    nothing = found(rows, weights={"never": 1.0, "aside": 0.0, "same": 1.0, "unknown": 1.0})

    assert dict(nothing.tasks) == {}
    assert math.isnan(nothing.score)
