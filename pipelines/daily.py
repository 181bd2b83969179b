"""Train day by day: measure yesterday's model on today's rows, then let it go on with them."""

import glob
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

from pipelines.daily_plot import plot_days
from recmoe.data.files import find_files
from recmoe.errors import DataError, TrainingError
from recmoe.evaluation.report import Report
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.growth.earlier import WarmStart
from recmoe.runs.evaluation import evaluate_bundle
from recmoe.runs.folder import RunFolder, write_atomically
from recmoe.runs.train import Launch, RunResult, train_here, train_run
from recmoe.runs.warm_start import find_warm_start

Register = Callable[[RunFolder], str]
"""Makes a version of a finished run's bundle; returns its number."""


@dataclass(frozen=True)
class Day:
    """The log of one day, or of any other period."""

    name: str
    path: Path
    """A file, or a folder of files."""


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


@dataclass
class DailyResult:
    """All days so far."""

    root: Path
    is_interrupted: bool = False
    days: list[DayResult] = field(default_factory=list)


def find_days(patterns: Sequence[str]) -> list[Day]:
    """Files and folders behind some globs, a day each, in the order of their names: day=9 comes before day=10.

    Raises:
        DataError: nothing is there, a folder holds no data files, or two days have the same name.
    """
    paths = sorted({Path(name) for pattern in patterns for name in glob.glob(str(Path(pattern).expanduser()))})
    days = sorted((Day(_day_name(path), path) for path in paths), key=lambda day: _natural(day.name))
    if not days:
        raise DataError(f"no day matches {', '.join(patterns)}; give a glob of files or folders, such as 'log/day=*'")
    for first, second in pairwise(days):
        if first.name == second.name:
            raise DataError(f"{first.path} and {second.path} are both day {first.name}; give each day one name")
    for day in days:
        find_files([str(day.path)])
    return days


def _day_name(path: Path) -> str:
    return path.name if path.is_dir() else path.name.removesuffix(".gz").rpartition(".")[0]


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Numbers inside a name count as numbers."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def train_daily(
    config: ExperimentConfig,
    days: Sequence[Day],
    root: Path,
    *,
    launch: Launch = train_here,
    warm_start: WarmStart | None = None,
    register: Register | None = None,
    with_frozen: bool = False,
    keep_days: int = 7,
    is_quiet: bool = False,
) -> DailyResult:
    """Train the days that are new, each from the model of the day before: weights, ids and optimizers.

    The day in which an earlier call was stopped is gone on with. The config's own splits are not read, and there is no
    early stopping: each day's rows are trained on ``training.epochs`` times, after they have measured.

    Args:
        days: in order; those that are finished are skipped.
        root: folder of the daily training: ``days/NAME`` is a run folder each, ``daily.json`` and ``daily.png`` tell
            how it went.
        warm_start: what the first day goes on from.
        register: what is done with each finished day.
        with_frozen: also measure the first day's model on every later day.
        keep_days: newest days whose checkpoints are kept; bundles stay.

    Raises:
        TrainingError: a day lies before one that is finished.
        RecmoeError: what data, config, device or store have to object.
    """
    result = DailyResult(root, days=_read(root))
    (root / "progressive").mkdir(parents=True, exist_ok=True)
    for day in _days_left(days, result.days):
        before = find_warm_start(result.days[-1].run) if result.days else warm_start
        progressive = None if before is None else _measured(before, day, root)
        frozen = None
        if with_frozen and result.days:
            frozen = _measured(find_warm_start(result.days[0].run), day, root)
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
        result.days.append(_day_result(day, run, progressive=progressive, frozen=frozen, version=version))
        _write(result)
        for old in result.days[:-keep_days]:
            shutil.rmtree(RunFolder(Path(old.run)).checkpoints, ignore_errors=True)
    return result


def _day_result(
    day: Day, run: RunResult, *, progressive: Report | None, frozen: Report | None, version: str | None
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
    )


def _days_left(days: Sequence[Day], done: Sequence[DayResult]) -> list[Day]:
    """Days that are not finished; TrainingError where one lies before a finished one."""
    finished = {one.day for one in done}
    left = [day for day in days if day.name not in finished]
    if left and done and _natural(left[0].name) < _natural(done[-1].day):
        raise TrainingError(
            f"day {left[0].name} lies before {done[-1].day}, which is trained already, and days are trained in their "
            "order; leave it out, or start afresh in another --run-dir"
        )
    return left


def _config_of(config: ExperimentConfig, day: Day) -> ExperimentConfig:
    """The config of one day's run: its rows to train on, nothing else to read."""
    data = config.data.model_copy(update={"train": (str(day.path),), "validation": (), "test": ()})
    training = config.training.model_copy(update={"early_stopping": None})
    return config.model_copy(update={"data": data, "training": training})


def _measured(model: WarmStart, day: Day, root: Path) -> Report:
    """An earlier model on a day's rows, as it would have served them; measured once."""
    bundle = ModelBundle.load(model.root if model.checkpoint is None else RunFolder(model.root).bundle)
    path = root / "progressive" / f"{day.name}-{bundle.digest[:12]}.json"
    if not path.exists():
        with tempfile.TemporaryDirectory(prefix="recmoe-") as cache:
            evaluation = evaluate_bundle(bundle, paths=[str(day.path)], cache_dir=Path(cache))
        write_atomically(path, evaluation.report.to_json())
    return Report.from_json(path.read_text())


def _known(report: Report | None) -> dict[str, float]:
    """Values of a report that could be computed."""
    return {} if report is None else {name: value for name, value in report.values().items() if math.isfinite(value)}


def _read(root: Path) -> list[DayResult]:
    path = root / "daily.json"
    return [DayResult(**values) for values in json.loads(path.read_text())["days"]] if path.exists() else []


def _write(result: DailyResult) -> None:
    """``daily.json``, and the plot beside it."""
    document = {"days": [asdict(day) for day in result.days]}
    write_atomically(result.root / "daily.json", json.dumps(document, indent=2))
    plot_days(result.days, result.root / "daily.png")
