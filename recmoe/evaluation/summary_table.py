"""summary_table(): the main number of every task beside what simple models reach; the first thing after a run."""

from rich.table import Table
from rich.text import Text

from recmoe.evaluation.baselines import BaselineKind, Baselines, Comparison, Estimate, Verdict, heading, title
from recmoe.evaluation.report import MetricRow, Report
from recmoe.evaluation.tables import format_interval, format_number

MAIN_METRICS = ("auc", "rmse")
"""Metrics by which models are compared, of probabilities and of values."""

WORDS: dict[Verdict, str] = {
    "better": "better",
    "as good": "as good",
    "worse": "WORSE",
    "unknown": "no interval",
}


def summary_table(report: Report) -> Table:
    """A line per task: AUC or RMSE of the model and of each baseline, the best in bold, and a verdict in words."""
    baselines = report.baselines or Baselines()
    kinds = list(baselines.values)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(Text("task.metric[space]"), no_wrap=True)
    table.add_column("model", no_wrap=True)
    by_task = {task: row for task in dict.fromkeys(row.task for row in report.rows) if (row := _main(report, task))}
    for kind in kinds:
        table.add_column(heading(kind, [row.name for row in by_task.values()]), justify="right", no_wrap=True)
    if kinds:
        table.add_column("the model is")
    for task, row in by_task.items():
        found = {comparison.kind: comparison for comparison in baselines.comparisons if comparison.task == task}
        values = [row.value, *(_value(found, baselines, kind, row) for kind in kinds)]
        cells = [f"{format_number(row.value)} {format_interval(row)}".rstrip()]
        cells += [format_number(value) for value in values[1:]]
        best = _best(values, is_highest=row.metric != "rmse")
        styled = [Text(cell, "bold" if place in best and kinds else "") for place, cell in enumerate(cells)]
        table.add_row(Text(row.name), *styled, *([_verdict(list(found.values()))] if kinds else []))
    return table


def verdict_in_words(comparisons: list[Comparison]) -> str:
    """``as good as both``, ``better than boosted trees, WORSE than logistic regression``."""
    by_verdict: dict[Verdict, list[str]] = {}
    for one in comparisons:
        by_verdict.setdefault(one.verdict, []).append(title(one.kind, one.metric))
    parts = []
    for verdict, names in by_verdict.items():
        link = {"better": "than ", "worse": "than ", "as good": "as ", "unknown": "beside "}[verdict]
        whole = len(comparisons) > 1 and len(names) == len(comparisons)
        parts.append(f"{WORDS[verdict]} {link}{'both' if whole and len(names) == 2 else ' and '.join(names)}")
    return ", ".join(parts)


def _verdict(comparisons: list[Comparison]) -> Text:
    is_worse = any(comparison.verdict == "worse" for comparison in comparisons)
    return Text(verdict_in_words(comparisons), "bold red" if is_worse else "")


def _main(report: Report, task: str) -> MetricRow | None:
    """The row of a task's AUC or RMSE; its first one where neither was asked for."""
    rows = [row for row in report.rows if row.task == task and row.slice is None]
    return next((row for row in rows if row.metric in MAIN_METRICS), rows[0] if rows else None)


def _value(
    found: dict[BaselineKind, Comparison], baselines: Baselines, kind: BaselineKind, row: MetricRow
) -> float | None:
    if kind in found and found[kind].metric == row.metric:
        return found[kind].baseline.value
    return baselines.values[kind].get(row.name, Estimate(None)).value


def _best(values: list[float | None], *, is_highest: bool) -> set[int]:
    """Places of the best value, as it is printed."""
    known = [value for value in values if value is not None]
    if not known:
        return set()
    best = format_number(max(known) if is_highest else min(known))
    return {place for place, value in enumerate(values) if value is not None and format_number(value) == best}
