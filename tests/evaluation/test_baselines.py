import io
import json

import pytest
from rich.console import Console

from recmoe.errors import EvaluationError
from recmoe.evaluation.baselines import Baselines, Comparison, Estimate, Verdict, dump, heading, verdict
from recmoe.evaluation.report import MetricRow, Report
from recmoe.evaluation.summary_table import summary_table, verdict_in_words
from recmoe.evaluation.tables import report_table


def comparison(said: Verdict, *, task: str = "comment", metric: str = "auc", trees: bool = False) -> Comparison:
    return Comparison(
        task=task,
        space="all",
        metric=metric,
        kind="boosted_trees" if trees else "logistic_regression",
        model=Estimate(0.596, 0.545, 0.65),
        baseline=Estimate(0.735, 0.687, 0.776),
        advantage=Estimate(-0.139, -0.2, -0.05),
        verdict=said,
    )


def baselines(*comparisons: Comparison) -> Baselines:
    return Baselines(
        values={
            "logistic_regression": {"comment.auc[all]": Estimate(0.735, 0.687, 0.776)},
            "boosted_trees": {"comment.auc[all]": Estimate(0.7)},
        },
        settings={"logistic_regression": {"comment": "C = 0.1"}},
        chance={"comment.ndcg@5[all]": 0.41},
        notes=("train: baselines read 5 of 9 rows",),
        comparisons=comparisons,
    )


def printed(report: Report, *, is_long: bool = False) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(report_table(report) if is_long else summary_table(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def report(of: Baselines | None) -> Report:
    numbers = (("ece", 0.01), ("auc", 0.596), ("ndcg@5", 0.5))
    rows = tuple(MetricRow("comment", "all", name, None, value, None, None, 100, 5) for name, value in numbers)
    return Report(rows=rows, num_rows=100, num_resamples=20, baselines=of)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.01, 0.2, "better"), (-0.2, -0.01, "worse"), (-0.01, 0.2, "as good"), (0.0, 0.2, "as good"),
     (None, None, "unknown")],
)  # fmt: skip
def test_verdict_asks_whether_the_interval_of_the_difference_leaves_out_zero(
    low: float | None, high: float | None, said: Verdict
) -> None:
    assert verdict(Estimate(0.1, low, high)) == said


def test_only_a_worse_model_is_warned_of() -> None:
    told = baselines(comparison("worse"), comparison("as good", trees=True)).warnings

    assert told == ["comment: AUC 0.596 [0.545, 0.650] is below that of logistic regression, 0.735 [0.687, 0.776]"]


def test_a_worse_rmse_lies_above() -> None:
    (told,) = baselines(comparison("worse", metric="rmse")).warnings

    assert told == "comment: RMSE 0.596 [0.545, 0.650] is above that of ridge regression, 0.735 [0.687, 0.776]"


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("as good", "as good", "as good as both"),
        ("worse", "better", "WORSE than logistic regression, better than boosted trees"),
        ("unknown", "unknown", "no interval beside both"),
    ],
)
def test_verdicts_become_words(first: Verdict, second: Verdict, words: str) -> None:
    assert verdict_in_words([comparison(first), comparison(second, trees=True)]) == words


def test_report_keeps_its_baselines_through_json() -> None:
    before = report(baselines(comparison("worse")))

    assert Report.from_json(before.to_json()) == before
    assert Baselines.from_json(json.loads(dump(baselines()))) == baselines()


def test_what_is_no_baselines_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"not the baselines of a report \(KeyError: 'values'\)"):
        Baselines.from_json({"rows": []})


def test_summary_has_one_line_per_task_with_both_baselines_and_a_verdict() -> None:
    lines = printed(report(baselines(comparison("worse"), comparison("as good", trees=True)))).splitlines()

    assert len(lines) == 2
    assert lines[0].split()[:2] == ["task.metric[space]", "model"]
    assert lines[1].split()[:4] == ["comment.auc[all]", "0.5960", "0.7350", "0.7350"]
    assert "WORSE than logistic regression, as good as boosted trees" in lines[1]


@pytest.mark.parametrize(
    ("names", "head"),
    [
        (["ctr.auc[all]", "ctr.calibration[all]", "cvr.auc[click]"], "logistic regression"),
        (["watch.rmse[click]", "watch.calibration[click]"], "ridge regression"),
        (["ctr.auc[all]", "watch.calibration[click]", "watch.rmse[click]"], "linear model"),
    ],
)
def test_column_of_a_baseline_is_called_right_for_all_of_its_rows(names: list[str], head: str) -> None:
    assert heading("logistic_regression", names) == head
    assert heading("boosted_trees", names) == "boosted trees"


def test_summary_of_probabilities_and_values_has_one_linear_model() -> None:
    numbers = (("ctr", "auc", 0.6), ("watch", "rmse", 20.0))
    rows = tuple(MetricRow(task, "all", name, None, value, None, None, 100, None) for task, name, value in numbers)
    mixed = Report(rows=rows, num_rows=100, num_resamples=20, baselines=baselines())

    assert "linear model  boosted trees" in printed(mixed).splitlines()[0]
    assert "linear model  boosted trees" in printed(mixed, is_long=True).splitlines()[0]


def test_summary_without_baselines_shows_the_model_alone() -> None:
    assert printed(report(None)).splitlines()[1].split() == ["comment.auc[all]", "0.5960"]


def test_long_table_has_a_column_per_baseline_and_one_of_chance() -> None:
    text = printed(report(baselines()), is_long=True)

    assert "random order" in text
    assert "0.7350" in text
    assert "0.4100" in text
