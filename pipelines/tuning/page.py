"""The page of a search: what mattered, readable without a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipelines.tuning.folder import TrialRecord, best_of
from pipelines.tuning.importance import MIN_TRIALS, importances
from pipelines.tuning.plots import history_plot, importance_plot, key_plot
from pipelines.tuning.score import Score
from pipelines.tuning.space import Space, show_value
from recmoe.evaluation.main_metrics import main_metrics
from recmoe.evaluation.plots import data_uri
from recmoe.experiment import ExperimentConfig
from recmoe.runs.folder import write_atomically

NUM_ROWS = 20
"""Trials in the table."""


@dataclass(frozen=True)
class TrialRow:
    """One line of the table."""

    record: TrialRecord
    score: float
    metrics: list[float | None]
    changes: list[tuple[str, str]]
    """Key and value, where the config has another one."""
    is_best: bool


@dataclass(frozen=True)
class KeyPlot:
    """One key and its picture."""

    key: str
    image: str
    share: float | None


def write_tune_page(
    records: Sequence[TrialRecord], space: Space, base: ExperimentConfig, score: Score, path: Path
) -> None:
    """Write the page; an existing file is replaced.

    Args:
        records: trials that are over, in the order of their ends, at least one with a score.
        base: the config as it stood.
    """
    best = best_of(records)
    assert best is not None
    assert best.score is not None
    shares = importances(records, base, space)
    names = space.names()
    scored = sorted((record for record in records if record.score is not None), key=lambda one: -(one.score or 0.0))
    metrics = [
        name for name in main_metrics(name for record in scored for name in record.metrics) if name != score.metric
    ]
    before = next((record.score for record in records if record.number == 0 and record.score is not None), None)
    environment = Environment(
        loader=PackageLoader("pipelines.tuning", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template("page.html").render(
        title=f"{base.name}: tuning",
        metric=score.metric,
        num_trials=len(records),
        num_stopped=sum(record.status in ("stopped", "cut") for record in records),
        best_number=best.number,
        best_score=score.shown(best.score),
        before=None if before is None else score.shown(before),
        history=data_uri(history_plot(records, score)),
        importance=data_uri(importance_plot(shares, names)) if shares else None,
        min_trials=MIN_TRIALS,
        keys=_key_plots(records, space, score, shares),
        metrics=metrics,
        rows=[_row(record, space, base, score, metrics, is_best=record is best) for record in scored[:NUM_ROWS]],
        num_scored=len(scored),
        failures=[record for record in records if record.status == "failed"],
    )
    write_atomically(path, text)


def _key_plots(
    records: Sequence[TrialRecord], space: Space, score: Score, shares: Mapping[str, float]
) -> list[KeyPlot]:
    """The keys that any trial with a score has, the most important one first."""
    used = {key for record in records if record.score is not None for key in record.values}
    keys = sorted((key for key in space.dimensions if key in used), key=lambda key: -shares.get(key, 0.0))
    return [
        KeyPlot(key, data_uri(key_plot(records, key, space.dimensions[key], score)), shares.get(key)) for key in keys
    ]


def _row(
    record: TrialRecord,
    space: Space,
    base: ExperimentConfig,
    score: Score,
    metrics: Sequence[str],
    *,
    is_best: bool,
) -> TrialRow:
    names = space.names()
    assert record.score is not None
    return TrialRow(
        record=record,
        score=score.shown(record.score),
        metrics=[record.metrics.get(name) for name in metrics],
        changes=[(names[key], show_value(value)) for key, value in space.changes(base, record.values).items()],
        is_best=is_best,
    )
