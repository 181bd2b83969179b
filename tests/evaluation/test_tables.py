import io

import pytest
from rich.console import Console
from rich.table import Table

from recmoe.evaluation.report import MetricRow, Report
from recmoe.evaluation.tables import compare_table, format_number, report_table


def printed(table: Table) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=200).print(table)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def row(metric: str, value: float | None, **fields: object) -> MetricRow:
    values: dict[str, object] = {
        "task": "ctr", "space": "all", "metric": metric, "slice": None, "value": value, "low": None, "high": None,
        "num_rows": 1200, "num_positive": 34, **fields,
    }  # fmt: skip
    return MetricRow(**values)  # type: ignore[arg-type]


def report(*rows: MetricRow) -> Report:
    return Report(rows=rows, num_rows=1200, num_resamples=200)


def test_report_table_prints_space_interval_and_counts() -> None:
    table = report_table(report(row("auc", 0.71234, low=0.7, high=0.72)))

    assert printed(table)[1].split() == ["ctr", "all", "auc", "0.7123", "[0.7000,", "0.7200]", "1,200", "34"]


def test_number_that_is_not_defined_is_a_dash_with_its_reason() -> None:
    table = report_table(report(row("auc", None, reason="no positive rows")))

    assert "–  (no positive rows)" in printed(table)[1]


def test_groups_dropped_are_printed() -> None:
    table = report_table(report(row("mrr", 0.5, num_groups_used=1000, num_groups_dropped=20)))

    assert printed(table)[1].endswith("1,000 (−20)")


def test_slices_can_be_left_out() -> None:
    both = report(row("auc", 0.7), row("auc", 0.6, slice="device=[phone]"))

    assert len(printed(report_table(both, slices=False))) == 2
    assert "device=[phone]" in "\n".join(printed(report_table(both)))


def test_compare_table_puts_models_side_by_side() -> None:
    table = compare_table(
        {"mmoe": report(row("auc", 0.7, low=0.6, high=0.8)), "ple": report(row("auc", 0.8))},
        columns={"best reachable": {"ctr.auc[all]": 0.9}},
        rows={"samples/s": {"mmoe": "41,000", "ple": "39,000"}},
    )

    lines = printed(table)
    assert lines[0].split("  ")[0] == "task.metric[space]"
    assert lines[1].split() == ["ctr.auc[all]", "0.7000", "[0.6000,", "0.8000]", "0.8000", "0.9000"]
    assert lines[2].split() == ["samples/s", "41,000", "39,000"]


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [("auc", (0.7, 0.8), 1), ("logloss", (0.7, 0.8), 0), ("calibration", (0.99, 1.2), 0)],
)
def test_best_model_of_a_row_is_bold(metric: str, values: tuple[float, float], best: int) -> None:
    table = compare_table({"a": report(row(metric, values[0])), "b": report(row(metric, values[1]))})

    styles = [str(next(iter(column.cells)).style) for column in table.columns[1:]]  # type: ignore[union-attr]
    assert [style == "bold" for style in styles] == [best == 0, best == 1]


def test_compare_table_shows_only_the_metrics_asked_for() -> None:
    table = compare_table({"a": report(row("auc", 0.7), row("ece", 0.1))}, metrics=("auc",))

    assert len(printed(table)) == 2


def test_model_without_a_number_has_an_empty_or_reasoned_cell() -> None:
    table = compare_table({"a": report(row("auc", None, reason="no positive rows")), "b": report()})

    assert printed(table)[1].endswith("– (no positive rows)")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0.0000"),
        (0.71234, "0.7123"),
        (0.0012345, "0.00123"),
        (12345.67, "12,345.7"),
        (-2.5, "-2.5000"),
    ],
)
def test_numbers_are_printed_with_the_digits_that_matter(value: float | None, text: str) -> None:
    assert format_number(value) == text
