"""skill: the share of a constant's loss that a model saves, and its mean over tasks."""

import math
from typing import Any

import numpy as np
import pytest

from recmoe.evaluation.predictions import Predictions
from recmoe.evaluation.skill import PRIOR_CASES, skill
from recmoe.tasks.error import CROSS_ENTROPY, GAMMA_DEVIANCE, SQUARED_ERROR, pinball, squared_error_on
from recmoe.tasks.scale import LOG1P


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
    errors = {name: CROSS_ENTROPY if kind == "binary" else SQUARED_ERROR for name, kind in rows.kinds.items()}
    return skill(rows, **{"weights": dict.fromkeys(rows.task_names, 1.0), "errors": errors, **options})


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

    watch = found(rows, errors={"watch": squared_error_on(LOG1P)}).tasks["watch"]

    # Labels 0, 0, 2 vary by 8/9 around 2/3; the model misses the last by 1.
    assert watch.value == pytest.approx(1 - (1 / 3) / (8 / 9))


def test_amount_saves_the_deviance_that_its_mean_leaves() -> None:
    rows = predictions(spend=("regression", [1.0, 1.0, 7.0], [0.0, 0.0, 7.0]))

    spend = found(rows, errors={"spend": GAMMA_DEVIANCE}).tasks["spend"]

    # Counted from 1: labels 1, 1, 8 with mean 10/3, predictions 2, 2, 8; a ratio r loses r − log r − 1.
    model = 2 * (0.5 + math.log(2) - 1) / 3
    constant = (2 * (0.3 - math.log(0.3) - 1) + (2.4 - math.log(2.4) - 1)) / 3
    assert spend.value == pytest.approx(1 - model / constant)


def test_quantile_saves_its_pinball_loss() -> None:
    rows = predictions(late=("quantile", [4.0] * 5, [0, 1, 2, 3, 4]))

    late = found(rows, errors={"late": pinball(0.75)}).tasks["late"]

    # The constant is 3: below it .25 · (3 + 2 + 1), above it .75 · 1. Of 4: .25 · (4 + 3 + 2 + 1).
    assert late.value == pytest.approx(1 - 2.5 / 2.25)


def test_score_saves_the_pairs_that_a_random_order_gets_wrong() -> None:
    rows = predictions(order=("score", [30.0, -2.0, 7.0, 1.0], [1, 0, 0, 1]))

    order = found(rows, errors={}).tasks["order"]

    # Of four pairs, one is in the wrong order: AUC is 3/4.
    assert order.value == pytest.approx(0.5)


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
