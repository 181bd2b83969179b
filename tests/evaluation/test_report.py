import math

import pytest

from recmoe.errors import EvaluationError
from recmoe.evaluation.evaluate import EvaluationConfig, evaluate
from recmoe.evaluation.predictions import Predictions
from recmoe.evaluation.report import Report


@pytest.fixture
def report(predictions: Predictions) -> Report:
    predictions.labels_NT[:, 1] = 0
    return evaluate(predictions, config=EvaluationConfig(num_resamples=5, slices=("device",)))


def test_json_round_trip_keeps_every_number(report: Report) -> None:
    assert Report.from_json(report.to_json()) == report


def test_values_are_all_defined_numbers_without_slices(report: Report) -> None:
    values = report.values()

    assert values["ctr.auc[all]"] == report.value("ctr.auc[all]")
    assert "cvr.auc[click]" not in values
    assert not any("device" in name for name in values)


def test_value_that_is_not_defined_is_nan(report: Report) -> None:
    assert math.isnan(report.value("cvr.auc[click]"))


def test_unknown_name_suggests_and_lists(report: Report) -> None:
    with pytest.raises(
        EvaluationError, match=r"no metric ctr\.auk\[all\] .*did you mean ctr\.auc\[all\]\?.*cvr\.auc\[cl"
    ):
        report.value("ctr.auk[all]")


def test_wrong_space_suggests_the_right_one(report: Report) -> None:
    with pytest.raises(EvaluationError, match=r"did you mean cvr\.auc\[click\]\?"):
        report.value("cvr.auc[clicked]")


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"format": 1, "rows": [{}], "num_rows": 1, "num_resamples": 1}'])
def test_text_that_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(EvaluationError, match="not a report of recmoe"):
        Report.from_json(text)


def test_report_of_another_format_is_refused() -> None:
    with pytest.raises(EvaluationError, match="the report has format 7, this version of recmoe reads 1"):
        Report.from_json('{"format": 7}')
