"""mean_report: the same experiment with several seeds as one report."""

import statistics
from collections.abc import Sequence
from dataclasses import replace

from recmoe.evaluation.report import MetricRow, Report


def mean_report(reports: Sequence[Report]) -> Report:
    """The mean of every number over reports of one split.

    An interval is the mean of the intervals: it tells what the choice of test rows does to the
    number, not what the seed does to it.
    """
    assert reports, "at least one report"
    by_name = [{row.name: row for row in report.rows} for report in reports]
    rows = tuple(_mean_row([rows[row.name] for rows in by_name if row.name in rows]) for row in reports[0].rows)
    return replace(reports[0], rows=rows)


def _mean_row(rows: Sequence[MetricRow]) -> MetricRow:
    return replace(
        rows[0],
        value=_mean([row.value for row in rows]),
        low=_mean([row.low for row in rows]),
        high=_mean([row.high for row in rows]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """None where any of them is not defined."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None
