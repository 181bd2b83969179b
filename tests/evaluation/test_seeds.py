from recmoe.evaluation.report import MetricRow, Report
from recmoe.evaluation.seeds import mean_report


def row(value: float | None, low: float | None = None, *, task: str = "ctr", slice_: str | None = None) -> MetricRow:
    return MetricRow(task, "all", "auc", slice_, value, low, None, num_rows=10, num_positive=5)


def report(*rows: MetricRow) -> Report:
    return Report(rows=rows, num_rows=10, num_resamples=0)


def test_numbers_and_intervals_are_means_over_the_seeds() -> None:
    mean = mean_report([report(row(0.5, 0.4)), report(row(0.75, 0.5)), report(row(1.0, 0.9))])

    assert mean.value("ctr.auc[all]") == 0.75
    assert abs((mean.rows[0].low or 0.0) - 0.6) < 1e-12
    assert mean.rows[0].high is None
    assert (mean.rows[0].num_rows, mean.num_rows) == (10, 10)


def test_numbers_are_matched_by_name_not_by_place() -> None:
    first = report(row(0.25), row(0.5, task="cvr"), row(0.75, slice_="device=phone"))
    second = report(row(0.75, slice_="device=phone"), row(1.0, task="cvr"), row(0.75))

    mean = mean_report([first, second])

    assert [r.value for r in mean.rows] == [0.5, 0.75, 0.75]


def test_number_that_one_seed_cannot_give_has_no_mean() -> None:
    assert mean_report([report(row(0.5)), report(row(None))]).rows[0].value is None


def test_report_of_one_seed_is_its_own_mean() -> None:
    one = report(row(0.5, 0.4))

    assert mean_report([one]) == one
