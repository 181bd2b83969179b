from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from recmoe.errors import EvaluationError
from recmoe.evaluation.evaluate import EvaluationConfig, evaluate, slice_masks
from recmoe.evaluation.metrics.auc import AucConfig
from recmoe.evaluation.metrics.gauc import GaucUserMeanConfig
from recmoe.evaluation.metrics.rmse import RmseConfig
from recmoe.evaluation.predictions import Predictions
from recmoe.tasks import TaskConfig
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.product import ProductTaskConfig
from recmoe.tasks.regression import RegressionTaskConfig

FAST = EvaluationConfig(num_resamples=20)


def test_every_number_is_of_its_task_and_space(predictions: Predictions) -> None:
    report = evaluate(predictions, config=FAST)

    clicked = predictions.labels_NT[:, 0] == 1
    expected = roc_auc_score(predictions.labels_NT[clicked, 1], predictions.predictions_NT[clicked, 1])
    assert report.value("cvr.auc[click]") == pytest.approx(expected)
    assert report.value("seconds.mae[all]") == 1.0
    assert report.row("cvr.auc[click]").num_rows == 6
    assert report.row("cvr.auc[click]").num_positive == 3
    assert report.row("seconds.mae[all]").num_rows == 11
    assert report.row("seconds.mae[all]").num_positive is None


def test_mean_prediction_of_a_task_is_over_all_rows_whatever_its_space(predictions: Predictions) -> None:
    report = evaluate(predictions, config=EvaluationConfig(num_resamples=0, metrics=()))
    predictions.predictions_NT[1, 1] = np.nan
    diverged = evaluate(predictions, config=EvaluationConfig(num_resamples=0, metrics=()))

    # Six of the twelve rows were clicked, the mean over them is 0.55.
    assert report.mean_predictions == pytest.approx({"ctr": 6.2 / 12, "cvr": 6.3 / 12, "seconds": 6.5})
    assert diverged.mean_predictions.keys() == {"ctr", "seconds"}
    assert predictions.take(np.array([], int)).means() == {}


def test_metrics_follow_from_the_kind_of_task_and_the_groups(predictions: Predictions) -> None:
    with_groups = evaluate(predictions, config=FAST)
    without = evaluate(replace(predictions, groups_N=None), config=FAST)

    assert [row.metric for row in without.rows if row.task == "ctr"] == [
        "auc", "logloss", "normalized_entropy", "calibration", "ece",
    ]  # fmt: skip
    assert [row.metric for row in without.rows if row.task == "seconds"] == ["calibration", "rmse", "mae"]
    assert [row.metric for row in with_groups.rows if row.task == "ctr"][5:] == [
        "gauc_user_mean", "gauc_impression", "ndcg@5", "ndcg@10", "mrr", "recall@5", "recall@10",
    ]  # fmt: skip


def test_config_tells_the_names_of_what_a_report_will_hold(predictions: Predictions) -> None:
    tasks: dict[str, TaskConfig] = {
        "ctr": BinaryTaskConfig(label="click"),
        "cvr": BinaryTaskConfig(label="buy", space="click"),
        "seconds": RegressionTaskConfig(label="seconds"),
    }

    names = FAST.metric_names(tasks, has_groups=True)

    assert names == [row.name for row in evaluate(predictions, config=FAST).rows]


def test_what_a_task_measures_itself_is_the_mean_over_its_rows_and_takes_the_place_of_a_general_metric(
    predictions: Predictions,
) -> None:
    error_N = np.arange(12.0)
    rows = replace(predictions, measures={"seconds": {"mae": error_N, "coverage@0.9": error_N < 4}})

    report = evaluate(rows, config=EvaluationConfig(metrics=(RmseConfig(),), num_resamples=20))

    # Row 0 has no label: the mean of 1 … 11, and rows 1, 2 and 3 of eleven.
    assert report.value("seconds.mae[all]") == 6.0
    assert report.value("seconds.coverage@0.9[all]") == pytest.approx(3 / 11)
    assert [row.metric for row in report.rows if row.task == "seconds"] == ["rmse", "mae", "coverage@0.9"]
    low, high = report.row("seconds.mae[all]").low, report.row("seconds.mae[all]").high
    assert low is not None
    assert high is not None
    assert low < 6.0 < high


def test_scores_and_quantiles_have_no_metrics_of_probabilities_and_means(predictions: Predictions) -> None:
    kinds = {"ctr": "score", "cvr": "score", "seconds": "quantile"}
    rows = replace(predictions, kinds=kinds, measures={"seconds": {"pinball@0.5": np.ones(12)}})  # type: ignore[arg-type]

    report = evaluate(rows, config=FAST)

    assert [row.metric for row in report.rows if row.task == "ctr"] == [
        "auc", "gauc_user_mean", "gauc_impression", "ndcg@5", "ndcg@10", "mrr", "recall@5", "recall@10",
    ]  # fmt: skip
    assert [row.metric for row in report.rows if row.task == "seconds"] == ["pinball@0.5"]
    assert report.row("ctr.auc[all]").num_positive == 6


def test_product_is_named_with_the_space_of_its_first_step() -> None:
    tasks: dict[str, TaskConfig] = {
        "ctr": BinaryTaskConfig(label="click"),
        "cvr": BinaryTaskConfig(label="buy", space="click"),
        "ctcvr": ProductTaskConfig(of=("ctr", "cvr")),
    }

    assert "ctcvr.auc[all]" in EvaluationConfig().metric_names(tasks, has_groups=False)


def test_interval_holds_the_value(predictions: Predictions) -> None:
    report = evaluate(predictions, config=EvaluationConfig())

    row, constant = report.row("ctr.auc[all]"), report.row("seconds.rmse[all]")
    assert row.low is not None
    assert row.high is not None
    assert row.value is not None
    assert row.low < row.value < row.high
    assert (constant.low, constant.high) == (1.0, 1.0)


def test_intervals_repeat_with_their_seed(predictions: Predictions) -> None:
    first, again, other = (evaluate(predictions, config=EvaluationConfig(seed=seed)) for seed in (0, 0, 1))

    assert first == again
    assert first.row("ctr.logloss[all]").low != other.row("ctr.logloss[all]").low


def test_no_resamples_is_no_interval(predictions: Predictions) -> None:
    row = evaluate(predictions, config=EvaluationConfig(num_resamples=0)).row("ctr.auc[all]")

    assert row.value is not None
    assert (row.low, row.high) == (None, None)


def test_one_class_only_is_no_value_with_its_reason(predictions: Predictions) -> None:
    predictions.labels_NT[:, 1] = 0

    report = evaluate(predictions, config=FAST)

    row = report.row("cvr.auc[click]")
    assert (row.value, row.low, row.high, row.reason) == (None, None, None, "no positive rows")
    assert np.isnan(report.value("cvr.auc[click]"))
    assert report.row("cvr.gauc_user_mean[click]").reason == "no group has both a positive and a negative row"


def test_empty_space_is_no_value(predictions: Predictions) -> None:
    predictions.weights_NT[:, 1] = 0

    report = evaluate(predictions, config=FAST)

    assert {row.reason for row in report.rows if row.task == "cvr"} == {"no rows"}


def test_slices_are_metrics_over_their_rows(predictions: Predictions) -> None:
    report = evaluate(predictions, config=EvaluationConfig(slices=("device",), num_resamples=0))

    row = report.row("ctr.auc[all, device=phone]")
    phone = predictions.slices["device"] == "phone"
    expected = roc_auc_score(predictions.labels_NT[phone, 0], predictions.predictions_NT[phone, 0])
    assert row.value == pytest.approx(expected)
    assert row.num_rows == 6
    assert report.row("ctr.auc[all, device=(missing)]").num_rows == 3


def test_rare_values_of_a_slice_are_taken_together() -> None:
    column = np.array(["a", "a", "a", "b", "b", "c", "d"])

    masks = dict(slice_masks(column, max_values=2))

    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"a": 3, "b": 2, "(other)": 2}


def test_nan_and_none_are_missing_in_slices() -> None:
    masks = dict(slice_masks(np.array([1.0, np.nan, 1.0]), max_values=5))

    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"1": 2, "(missing)": 1}


def test_slice_column_that_was_not_kept_is_named(predictions: Predictions) -> None:
    with pytest.raises(EvaluationError, match=r"slice column country was not kept .*; there are: device"):
        evaluate(predictions, config=EvaluationConfig(slices=("country",)))


def test_listed_metrics_are_the_only_ones(predictions: Predictions) -> None:
    report = evaluate(predictions, config=EvaluationConfig(metrics=(RmseConfig(), AucConfig()), num_resamples=0))

    assert [row.name for row in report.rows] == ["ctr.auc[all]", "cvr.auc[click]", "seconds.rmse[all]"]


def test_listed_metric_over_groups_needs_groups(predictions: Predictions) -> None:
    config = EvaluationConfig(metrics=(GaucUserMeanConfig(),))

    with pytest.raises(EvaluationError, match=r"gauc_user_mean needs rows with a group.*inputs\.group"):
        evaluate(replace(predictions, groups_N=None), config=config)


def test_metric_given_twice_is_a_problem() -> None:
    config = EvaluationConfig(metrics=(AucConfig(), AucConfig()))

    assert list(config.problems()) == [("metrics.1", "auc is given twice")]
