"""Train day by day: measure yesterday's model on today's rows, then let it go on with them."""

import json
import logging
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.daily_plot import plot_days
from pipelines.days import Day, find_days, in_order, num_rows
from recmoe.errors import TrainingError
from recmoe.evaluation.report import Report
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.growth.earlier import WarmStart
from recmoe.runs.claim import claimed
from recmoe.runs.evaluation import evaluate_bundle
from recmoe.runs.folder import RunFolder, write_atomically
from recmoe.runs.train import Launch, RunResult, train_here, train_run
from recmoe.runs.warm_start import find_warm_start

__all__ = ["DailyResult", "Day", "DayResult", "find_days", "train_daily"]

_logger = logging.getLogger(__name__)

Register = Callable[[RunFolder], str]
"""Makes a version of a finished run's bundle; returns its number."""


@dataclass(frozen=True)
class DayResult:
    """What one day has shown."""

    day: str
    run: str
    """The day's run, which went on from the one before."""
    num_rows: int
    """Rows that yesterday's model was measured on; 0 on the first day, which has no yesterday."""
    metrics: dict[str, float]
    """Of yesterday's model, on this day's rows, before any of them was trained on."""
    frozen: dict[str, float]
    """The same of the first day's model, which has learnt nothing since; empty where not asked for."""
    ids: dict[str, dict[str, float]]
    """Per table of dynamic ids: rows used, admitted, evicted, share of the day's ids that look up row 0 …"""
    samples_per_s: float
    version: str | None = None
    """In the registry."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """95 % intervals of ``metrics``, where they were resampled."""


@dataclass
class DailyResult:
    """All days so far."""

    root: Path
    is_interrupted: bool = False
    days: list[DayResult] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)
    """Days that were not trained on, and why."""


def train_daily(
    config: ExperimentConfig,
    days: Sequence[Day],
    root: Path,
    *,
    launch: Launch = train_here,
    num_workers: int = 1,
    warm_start: WarmStart | None = None,
    register: Register | None = None,
    with_frozen: bool = False,
    keep_days: int = 7,
    is_quiet: bool = False,
) -> DailyResult:
    """Train the days that are new, each from the model of the day before: weights, ids and optimizers.

    The day in which an earlier call was stopped is gone on with. The config's own splits are not read, and there is no
    early stopping: each day's rows are trained on ``training.epochs`` times, after they have measured. A day without
    rows, or with fewer than a step needs, is passed over with a warning; it is looked at again while no later one is
    trained.

    Args:
        days: in order; those that are finished are skipped.
        root: folder of the daily training: ``days/NAME`` is a run folder each, ``daily.json`` and ``daily.png`` tell
            how it went.
        num_workers: workers that ``launch`` starts, each with rows of its own in a step.
        warm_start: what the first day goes on from.
        register: what is done with each finished day.
        with_frozen: also measure the first day's model on every later day.
        keep_days: newest days whose checkpoints are kept; bundles stay.

    Raises:
        TrainingError: a day lies before one that is finished, or another process works on the folder.
        RecmoeError: the data, config, device or store is not usable.
    """
    with claimed(root):
        result = _read(root)
        (root / "progressive").mkdir(exist_ok=True)
        for day in _days_left(days, result):
            before = find_warm_start(result.days[-1].run) if result.days else warm_start
            first = find_warm_start(result.days[0].run) if with_frozen and result.days else None
            with tempfile.TemporaryDirectory(prefix="recmoe-") as cache:
                if too_few := _too_few(day, config, num_workers, Path(cache)):
                    _pass_over(day, too_few, result)
                    continue
                progressive = _measured(before, config, day, root, Path(cache))
                frozen = _measured(first, config, day, root, Path(cache))
            run = train_run(
                _config_of(config, day),
                root / "days" / day.name,
                resume=True,
                launch=launch,
                is_quiet=is_quiet,
                warm_start=before,
            )
            if run.is_interrupted:
                result.is_interrupted = True
                return result
            version = None if register is None else register(run.folder)
            _add(_day_result(day, run, progressive, frozen, version), result, keep_days=keep_days)
    return result


def _add(done: DayResult, result: DailyResult, *, keep_days: int) -> None:
    """Write a finished day down, and give up the checkpoints of old ones."""
    result.days.append(done)
    result.passed_over.pop(done.day, None)
    _write(result)
    for old in result.days[:-keep_days]:
        shutil.rmtree(RunFolder(Path(old.run)).checkpoints, ignore_errors=True)


def _pass_over(day: Day, reason: str, result: DailyResult) -> None:
    _logger.warning("day %s is passed over: %s", day.name, reason)
    result.passed_over[day.name] = reason
    _write(result)


def _too_few(day: Day, config: ExperimentConfig, num_workers: int, cache_dir: Path) -> str | None:
    """Why a day cannot be trained on; None for one that can."""
    rows_per_step = config.training.batch_size * num_workers
    rows = num_rows(day, config.data, cache_dir=cache_dir)
    if rows >= rows_per_step:
        return None
    return f"it has {rows:,} rows, fewer than the {rows_per_step:,} of a step" if rows else "it has no rows"


def _day_result(
    day: Day, run: RunResult, progressive: Report | None, frozen: Report | None, version: str | None
) -> DayResult:
    return DayResult(
        day=day.name,
        run=str(run.folder.root),
        num_rows=0 if progressive is None else progressive.num_rows,
        metrics=_known(progressive),
        frozen=_known(frozen),
        ids=run.folder.state["id_updates"],
        samples_per_s=run.samples_per_s,
        version=version,
        intervals=_intervals(progressive),
    )


def _days_left(days: Sequence[Day], done: DailyResult) -> list[Day]:
    """Days that are not finished; TrainingError where one lies before a finished one, and was not passed over."""
    finished = {one.day for one in done.days}
    left = [day for day in days if day.name not in finished]
    if not done.days:
        return left
    last = done.days[-1].day
    late = [day for day in left if in_order(day.name) < in_order(last)]
    for day in late:
        if day.name not in done.passed_over:
            raise TrainingError(
                f"day {day.name} lies before {last}, which is trained already, and days are trained in their "
                "order; leave it out, or start afresh in another --run-dir"
            )
    return [day for day in left if day not in late]


def _config_of(config: ExperimentConfig, day: Day) -> ExperimentConfig:
    """The config of one day's run: its rows to train on, nothing else to read."""
    data = config.data.model_copy(update={"train": (str(day.path),), "validation": (), "test": ()})
    training = config.training.model_copy(update={"early_stopping": None})
    return config.model_copy(update={"data": data, "training": training})


def _measured(
    model: WarmStart | None, config: ExperimentConfig, day: Day, root: Path, cache_dir: Path
) -> Report | None:
    """An earlier model on a day's rows, read as the day's run will read them; measured once."""
    if model is None:
        return None
    bundle = ModelBundle.load(model.root if model.checkpoint is None else RunFolder(model.root).bundle)
    path = root / "progressive" / f"{day.name}-{bundle.digest[:12]}.json"
    if not path.exists():
        data = _config_of(config, day).data
        evaluation = evaluate_bundle(bundle, paths=[str(day.path)], data=data, cache_dir=cache_dir)
        write_atomically(path, evaluation.report.to_json())
    return Report.from_json(path.read_text(encoding="utf-8"))


def _known(report: Report | None) -> dict[str, float]:
    """Values of a report that could be computed."""
    return {} if report is None else {name: value for name, value in report.values().items() if math.isfinite(value)}


def _intervals(report: Report | None) -> dict[str, tuple[float, float]]:
    """95 % intervals by metric, over all rows."""
    rows = () if report is None else report.rows
    return {
        row.name: (row.low, row.high)
        for row in rows
        if row.slice is None and row.low is not None and row.high is not None
    }


def _read(root: Path) -> DailyResult:
    path = root / "daily.json"
    if not path.exists():
        return DailyResult(root)
    document = json.loads(path.read_text(encoding="utf-8"))
    days = [_day_of({**values, "run": str(root / "days" / values["day"])}) for values in document["days"]]
    return DailyResult(root, days=days, passed_over=document.get("passed_over", {}))


def _day_of(values: Mapping[str, Any]) -> DayResult:
    intervals = {name: (low, high) for name, (low, high) in values.get("intervals", {}).items()}
    return DayResult(**{**values, "intervals": intervals})


def _write(result: DailyResult) -> None:
    """``daily.json``, and the plot beside it."""
    document = {"days": [asdict(day) for day in result.days], "passed_over": result.passed_over}
    write_atomically(result.root / "daily.json", json.dumps(document, indent=2))
    plot_days(result.days, result.root / "daily.png")
