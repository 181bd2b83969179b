"""Tables: reports as text, one model by itself or several side by side."""

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from recmoe.evaluation.baselines import Baselines, Estimate, heading
from recmoe.evaluation.metrics import metric_best
from recmoe.evaluation.report import MetricRow, Report

ABSENT = "–"
"""Stands for a number that does not exist, never 0.5 or 1."""


def report_table(report: Report, *, slices: bool = True) -> Table:
    """One row per number of a report; a number that is not defined is a dash with its reason."""
    rows = [row for row in report.rows if slices or row.slice is None]
    has_slices = any(row.slice is not None for row in rows)
    has_groups = any(row.num_groups_used is not None for row in rows)
    baselines = report.baselines or Baselines()
    headers = [
        "task",
        "space",
        *(["slice"] if has_slices else []),
        "metric",
        "value",
        "95 % interval",
        *(heading(kind, [row.name for row in rows]) for kind in baselines.values),
        *(["random order"] if baselines.chance else []),
        "rows",
        "positive",
    ]
    headers += ["groups"] if has_groups else []
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        is_number = header not in ("task", "space", "slice", "metric", "95 % interval")
        table.add_column(header, justify="right" if is_number else "left", no_wrap=header != "95 % interval")
    before: MetricRow | None = None
    for row in rows:
        if before is not None and (row.task, row.slice) != (before.task, before.slice):
            table.add_section()
        cells = [row.task, row.space, *([row.slice or "all rows"] if has_slices else []), row.metric]
        cells += [format_number(row.value), format_interval(row) or (f"({row.reason})" if row.reason else "")]
        cells += [format_number(value) if row.slice is None else "" for value in baseline_cells(baselines, row)]
        cells += [f"{row.num_rows:,}", "" if row.num_positive is None else f"{row.num_positive:,}"]
        if has_groups:
            cells.append(format_groups(row))
        table.add_row(*map(Text, cells))
        before = row
    return table


def compare_table(
    reports: Mapping[str, Report],
    *,
    columns: Mapping[str, Mapping[str, float]] | None = None,
    rows: Mapping[str, Mapping[str, str]] | None = None,
    metrics: tuple[str, ...] | None = None,
) -> Table:
    """Several models side by side: a row per task, metric and space, the best value of each row in bold.

    Args:
        reports: by name of the model.
        columns: further columns, such as {"best reachable": {"ctr.auc[all]": 0.81}}.
        rows: further rows below, such as {"samples/s": {"mmoe": "41,000"}}.
        metrics: metrics to show, such as ("auc", "rmse"); all by default.
    """
    columns = columns or {}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(Text("task.metric[space]"), no_wrap=True)
    for name in (*reports, *columns):
        table.add_column(Text(name), justify="right", no_wrap=True)
    names = dict.fromkeys(
        row.name
        for report in reports.values()
        for row in report.rows
        if row.slice is None and (metrics is None or row.metric in metrics)
    )
    for name in names:
        found = {model: _find(report, name) for model, report in reports.items()}
        best = _best_models(name, found)
        cells = [
            Text(_with_interval(row), style="bold" if model in best and len(reports) > 1 else "")
            for model, row in found.items()
        ]
        table.add_row(Text(name), *cells, *(Text(format_number(values.get(name))) for values in columns.values()))
    if rows:
        table.add_section()
    for label, values in (rows or {}).items():
        table.add_row(Text(label), *(Text(values.get(name, "")) for name in (*reports, *columns)))
    return table


def baseline_cells(baselines: Baselines, row: MetricRow) -> list[float | None]:
    """What the baselines reach where a row stands; last what a random order gives, where any row has that."""
    cells = [values.get(row.name, Estimate(None)).value for values in baselines.values.values()]
    return [*cells, baselines.chance.get(row.name)] if baselines.chance else cells


def format_number(value: float | None) -> str:
    """Four decimals; three digits where the number is small, one decimal where it is large; a dash for none."""
    if value is None:
        return ABSENT
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.4f}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:#.3g}"


def format_interval(row: MetricRow) -> str:
    """[low, high], or nothing where there is no interval."""
    if row.low is None or row.high is None:
        return ""
    return f"[{format_number(row.low)}, {format_number(row.high)}]"


def format_groups(row: MetricRow) -> str:
    """Groups used, and how many were dropped."""
    if row.num_groups_used is None:
        return ""
    dropped = f" (−{row.num_groups_dropped:,})" if row.num_groups_dropped else ""
    return f"{row.num_groups_used:,}{dropped}"


def _with_interval(row: MetricRow | None) -> str:
    if row is None:
        return ""
    if row.value is None:
        return f"{ABSENT} ({row.reason})"
    return f"{format_number(row.value)} {format_interval(row)}".rstrip()


def _find(report: Report, name: str) -> MetricRow | None:
    return next((row for row in report.rows if row.name == name), None)


def _best_models(name: str, found: Mapping[str, MetricRow | None]) -> set[str]:
    """Models with the best value, as it is printed."""
    values = {model: row.value for model, row in found.items() if row is not None and row.value is not None}
    if not values:
        return set()
    best = metric_best(name)
    goal = float(name.split("@")[1].split("[")[0]) if best == "level" else 1.0
    badness = {m: {"highest": -v, "lowest": v}.get(best, abs(v - goal)) for m, v in values.items()}
    winner = min(badness, key=badness.__getitem__)
    return {model for model in values if format_number(values[model]) == format_number(values[winner])}
