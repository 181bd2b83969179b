from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from recmoe.evaluation.compare import baseline_values, chance_values, compare
from recmoe.evaluation.evaluate import EvaluationConfig, evaluate
from recmoe.evaluation.predictions import Predictions

CONFIG = EvaluationConfig(num_resamples=200, slices=("device",))


def rows_of_one_task(noise: float, num_rows: int = 2000) -> tuple[Predictions, np.ndarray]:
    """A good model, and the same with noise; labels follow the scores."""
    random = np.random.default_rng(0)
    score_N = random.uniform(size=num_rows)
    label_N = (random.uniform(size=num_rows) < score_N).astype(np.float32)
    worse_N = score_N + noise * random.normal(size=num_rows)
    predictions = Predictions(
        task_names=("click",),
        predictions_NT=score_N[:, None],
        labels_NT=label_N[:, None],
        weights_NT=np.ones((num_rows, 1), np.float32),
        spaces={"click": "all"},
        kinds={"click": "binary"},
    )
    return predictions, worse_N[:, None]


def test_a_model_is_better_than_itself_with_noise_though_the_intervals_overlap() -> None:
    predictions, worse_NT = rows_of_one_task(0.1)

    (found,) = compare(predictions, {"boosted_trees": worse_NT}, config=CONFIG)

    assert found.verdict == "better"
    assert found.model.low is not None
    assert found.baseline.high is not None
    assert found.baseline.high > found.model.low


def test_the_other_way_round_the_model_is_worse() -> None:
    predictions, worse_NT = rows_of_one_task(0.1)
    worse = replace(predictions, predictions_NT=worse_NT)

    (found,) = compare(worse, {"boosted_trees": predictions.predictions_NT}, config=CONFIG)

    assert found.verdict == "worse"
    assert found.warning is not None


def test_a_model_is_as_good_as_itself() -> None:
    predictions, _ = rows_of_one_task(0.0)

    (found,) = compare(predictions, {"boosted_trees": predictions.predictions_NT}, config=CONFIG)

    assert (found.advantage.value, found.advantage.low, found.verdict) == (0.0, 0.0, "as good")


def test_less_error_is_an_advantage_for_values(predictions: Predictions) -> None:
    exact_NT = predictions.labels_NT

    found = {one.task: one for one in compare(predictions, {"logistic_regression": exact_NT}, config=CONFIG)}

    assert found["seconds"].metric == "rmse"
    assert found["seconds"].advantage.value == pytest.approx(-1.0)
    assert found["seconds"].verdict == "worse"


def test_without_resamples_no_verdict_is_given(predictions: Predictions) -> None:
    quick = CONFIG.model_copy(update={"num_resamples": 0})

    found = compare(predictions, {"boosted_trees": predictions.predictions_NT}, config=quick)

    assert {one.verdict for one in found} == {"unknown"}


def test_values_of_a_baseline_are_those_of_a_model_with_its_predictions(predictions: Predictions) -> None:
    own = {"ctr": (), "cvr": (), "seconds": ("mae",)}

    values = baseline_values(predictions, config=CONFIG, own=own)

    row = evaluate(predictions, config=CONFIG).row("ctr.auc[all]")
    assert (values["ctr.auc[all]"].value, values["ctr.auc[all]"].low) == (row.value, row.low)
    assert not any("device" in name for name in values)
    assert {name.split(".")[1] for name in values if name.startswith("seconds")} == {
        "rmse[all]",
        "calibration[all]",
    }


def test_task_that_no_baseline_fits_has_neither_values_nor_a_comparison(predictions: Predictions) -> None:
    without_NT = predictions.predictions_NT.copy()
    without_NT[:, 1] = np.nan
    own = dict.fromkeys(predictions.task_names, ())

    compared = compare(predictions, {"boosted_trees": without_NT}, config=CONFIG)
    values = baseline_values(replace(predictions, predictions_NT=without_NT), config=CONFIG, own=own)

    assert [one.task for one in compared] == ["ctr", "seconds"]
    assert {name.split(".")[0] for name in values} == {"ctr", "seconds"}


def test_chance_is_the_mean_over_all_orders_of_a_list(make_predictions: Callable[[], Predictions]) -> None:
    predictions = make_predictions()

    chance = chance_values(predictions, config=CONFIG)

    # Lists of three: with one positive in any place MRR is (1 + 1/2 + 1/3) / 3, with two (1 + 1 + 1/2) / 3.
    assert chance["ctr.mrr[all]"] == pytest.approx((2 * 2.5 / 3 + 2 * (11 / 6) / 3) / 4)
    assert chance["ctr.gauc_user_mean[all]"] == pytest.approx(0.5)
    assert not any(name.startswith("seconds") for name in chance)
    assert "ctr.auc[all]" not in chance


def test_without_lists_there_is_no_chance() -> None:
    predictions, _ = rows_of_one_task(0.0, num_rows=10)

    assert chance_values(predictions, config=CONFIG) == {}
