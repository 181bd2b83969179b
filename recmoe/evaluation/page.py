"""The report page: one HTML file with all numbers and plots, readable without a network."""

# N rows

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from recmoe.evaluation.baselines import TITLES, Baselines, Comparison, heading, in_words
from recmoe.evaluation.by_group import group_sentences
from recmoe.evaluation.expert_page import History, expert_sections
from recmoe.evaluation.metrics import MEASURES, METRIC_KINDS, metric_best
from recmoe.evaluation.metrics.metric import FloatArray
from recmoe.evaluation.plots import (
    Plot,
    beside_plot,
    data_uri,
    gain_plot,
    level_plot,
    reliability_plot,
    roc_plot,
    score_plot,
    value_plot,
)
from recmoe.evaluation.predictions import Predictions
from recmoe.evaluation.report import MetricRow, Report, metric_name
from recmoe.evaluation.summary_table import verdict_in_words
from recmoe.evaluation.tables import baseline_cells, format_groups, format_interval, format_number
from recmoe.moe.level_use import LevelUse
from recmoe.tasks.task import TaskOutput, has_binary_label


@dataclass(frozen=True)
class TaskSection:
    """One task of the page."""

    name: str
    space: str
    kind: str
    num_rows: int
    num_positive: int | None
    rows: list[MetricRow]
    plots: list[Plot]
    slices: list[tuple[str, list[MetricRow]]]
    """Slice → one row per metric."""


def write_report_page(
    report: Report,
    predictions: Predictions,
    levels: Sequence[LevelUse],
    path: Path,
    *,
    title: str = "Evaluation",
    about: Mapping[str, str] | None = None,
    warnings: Sequence[str] = (),
    history: History = MappingProxyType({}),
) -> None:
    """Write the page; an existing file is replaced.

    Args:
        report: from ``evaluate`` on the same predictions.
        about: where the numbers come from, such as {"architecture": "mmoe"}.
        warnings: what the run was warned of, beside tasks that are worse than a baseline.
        levels: what gates and experts did on the same rows; none for a model without gates.
        history: the same on the validation split while the model was trained, by step.
    """
    environment = Environment(
        loader=PackageLoader("recmoe.evaluation", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals |= {"cells": baseline_cells, "titles": TITLES, "heading": heading}
    environment.filters |= {
        "in_words": in_words,
        "number": format_number,
        "interval": format_interval,
        "groups": format_groups,
    }
    text = environment.get_template("page.html").render(
        title=title,
        about=about or {},
        warnings=warnings,
        report=report,
        baselines=report.baselines or Baselines(),
        beside=_beside(report),
        by_group=list(group_sentences(report)),
        sections=[_section(report, predictions, task) for task in predictions.task_names],
        experts=expert_sections(levels, history),
        glossary=_glossary(report),
    )
    path.write_text(text, encoding="utf-8")


def _beside(report: Report) -> list[tuple[str, str, str | None, str]]:
    """Per task: the name of its main number, a verdict in words, a picture of it beside the baselines, its class."""
    if report.baselines is None:
        return []
    by_task: dict[str, list[Comparison]] = {}
    for comparison in report.baselines.comparisons:
        by_task.setdefault(comparison.task, []).append(comparison)
    return [
        (
            metric_name(task, found[0].metric, found[0].space),
            verdict_in_words(found),
            data_uri(beside_plot(found)) if found[0].model.value is not None else None,
            "worse" if any(one.verdict == "worse" for one in found) else "",
        )
        for task, found in by_task.items()
    ]


def _section(report: Report, predictions: Predictions, task: str) -> TaskSection:
    rows = [row for row in report.rows if row.task == task]
    slices: dict[str, list[MetricRow]] = {}
    for row in rows:
        if row.slice is not None:
            slices.setdefault(row.slice, []).append(row)
    scores, labels = predictions.of_task(task)
    kind = predictions.kinds[task]
    return TaskSection(
        name=task,
        space=predictions.spaces[task],
        kind=kind,
        num_rows=len(scores),
        num_positive=int(labels.sum()) if has_binary_label(kind) else None,
        rows=[row for row in rows if row.slice is None],
        plots=[*_plots(scores.astype(np.float64), labels.astype(np.float64), kind), *_level_plots(rows)],
        slices=list(slices.items()),
    )


def _plots(scores_N: FloatArray, labels_N: FloatArray, kind: TaskOutput) -> list[Plot]:
    """The plots of a task; those that its rows do not allow say why."""
    no_rows = None if len(scores_N) else "no rows"
    no_gain = no_rows or (None if labels_N.min() >= 0 and labels_N.any() else "labels are negative or all 0")
    if not has_binary_label(kind):
        return [
            *([] if kind == "quantile" else [
                _plot("Reliability", "mean label by mean prediction, bins of equal mass, 95 % intervals", no_rows,
                      lambda: reliability_plot(scores_N, labels_N, is_binary=False))]),
            _plot("Cumulative gain", "share of the sum of labels in the rows with the highest predictions", no_gain,
                  lambda: gain_plot(scores_N, labels_N, of="the sum of labels")),
            _plot("Values", "distribution of predictions and labels", no_rows, lambda: value_plot(scores_N, labels_N)),
        ]  # fmt: skip
    one_class = no_rows or ("no positive rows" if not labels_N.any() else None)
    both = one_class or ("no negative rows" if labels_N.all() else None)
    return [
        _plot("ROC", "how well positives are told from negatives, at every threshold", both,
              lambda: roc_plot(scores_N, labels_N)),
        *([] if kind == "score" else [
            _plot("Reliability", "mean label by mean prediction, bins of equal mass, 95 % intervals", one_class,
                  lambda: reliability_plot(scores_N, labels_N, is_binary=True))]),
        _plot("Cumulative gain", "share of all positives among the rows with the highest predictions", one_class,
              lambda: gain_plot(scores_N, labels_N, of="positives")),
        _plot("Scores", "distribution of predictions, by label", no_rows, lambda: score_plot(scores_N, labels_N)),
    ]  # fmt: skip


def _level_plots(rows: Sequence[MetricRow]) -> list[Plot]:
    """Measures that are right at the level in their names, such as the coverage of quantiles."""
    found = [row for row in rows if row.slice is None and metric_best(row.name) == "level"]
    if not found:
        return []
    quantile_U = np.array([float(row.metric.split("@")[1]) for row in found])
    share_U = np.array([row.value for row in found], dtype=np.float64)
    explanation = "share of labels at or below each quantile, 95 % intervals"
    reason = next((row.reason for row in found if row.reason), None)
    return [_plot("Coverage", explanation, reason, lambda: level_plot(quantile_U, share_U, num_rows=found[0].num_rows))]


def _plot(title: str, explanation: str, reason: str | None, draw: Callable[[], str]) -> Plot:
    return Plot(title, explanation, None if reason else data_uri(draw()), reason)


def _glossary(report: Report) -> list[tuple[str, str]]:
    """What the metrics in a report mean, from their own docstrings."""
    used = {row.metric.split("@")[0] for row in report.rows}
    kinds = [(str(config.model_fields["kind"].default), config.__doc__ or "") for config in METRIC_KINDS]
    own = [(name, measure.meaning) for name, measure in MEASURES.items()]
    return [(kind, meaning) for kind, meaning in dict([*kinds, *own]).items() if kind in used]
