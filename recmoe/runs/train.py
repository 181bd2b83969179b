"""A run from config to bundle: prepare, train (however it is launched), record."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from recmoe.config import dump_config
from recmoe.data.loader import Split
from recmoe.data.parquet import ParquetStream
from recmoe.errors import DataError, RecmoeError, TrainingError
from recmoe.evaluation.report import Report
from recmoe.experiment import ExperimentConfig, experiment_from_json
from recmoe.features.encoder import FeatureEncoder
from recmoe.growth.carry import check_rate, check_widths
from recmoe.growth.earlier import EarlierModel, WarmStart
from recmoe.runs.baselines import keep_baselines
from recmoe.runs.cost import keep_cost
from recmoe.runs.encoded import has_index, keep_splits
from recmoe.runs.encoder import ReadHere, Reading
from recmoe.runs.export import check_remakeable
from recmoe.runs.facts import learn_facts
from recmoe.runs.folder import RunFolder
from recmoe.runs.leaks import warn_of_leaks
from recmoe.runs.origin import Origin
from recmoe.runs.record import id_metrics, record_files, record_results, run_facts, tracked
from recmoe.runs.source import RUNS
from recmoe.runs.splits import open_split
from recmoe.runs.teacher import keep_teacher_rows, remember_origin, teacher_of
from recmoe.runs.warm_start import open_warm_start, remember_warm_start
from recmoe.runs.worker import run_worker
from recmoe.training.checkpoint_folder import committed
from recmoe.training.follow import CurveFollower
from recmoe.training.runtime import start_runtime

_logger = logging.getLogger(__name__)

Launch = Callable[[ExperimentConfig, RunFolder], None]
"""Has ``run_worker`` run in one process or many, and returns when it is over."""


@dataclass(frozen=True)
class RunResult:
    """What a run left behind."""

    folder: RunFolder
    is_interrupted: bool
    report: Report | None
    """Metrics of the test split; None without one, or if the run was interrupted."""
    samples_per_s: float


def train_here(config: ExperimentConfig, folder: RunFolder) -> None:
    """Launch the job in this process."""
    runtime = start_runtime(device=config.training.device, timeout_s=config.training.timeout_s)
    run_worker(config, folder, runtime=runtime)


def train_run(
    config: ExperimentConfig,
    root: Path,
    *,
    resume: bool,
    launch: Launch = train_here,
    is_quiet: bool = False,
    warm_start: WarmStart | None = None,
    origin: Origin | None = None,
    is_strict: bool = False,
) -> RunResult:
    """Train a config in a run folder, and leave report and bundle there.

    A run that is over is left as it is, unless its bundle is gone: that is made again, from the best checkpoint. One
    that was interrupted goes on from its last committed checkpoint, and under the same id where it is recorded.

    Args:
        launch: how the processes of the job are started.
        is_quiet: no progress on the terminal.
        warm_start: an earlier model to go on from; a resumed run remembers its own.
        origin: a model that this one is made from: a teacher, or the start; a resumed run remembers its own.
        is_strict: a feature that may know the answer stops the run, which is warned of otherwise.

    Raises:
        DataError: with ``is_strict``, features that may know the answer.
        TrainingError: the folder belongs to another run, another process works on it, the job failed, or the earlier
            model does not fit.
        RecmoeError: the data, config, device or store is not usable.
    """
    folder = RunFolder(root)
    with folder.claimed():
        folder.start(dump_config(config), resume=resume)
        if warm_start is not None:
            remember_warm_start(folder, warm_start)
        if origin is not None:
            remember_origin(folder, origin, config)
        if folder.state.get("status") == "finished":
            if folder.bundle.exists() or folder.pretraining.exists():
                return _result(folder)
            check_remakeable(folder)
        return _train(config, folder, launch=launch, is_quiet=is_quiet, is_strict=is_strict)


def remake_bundle(folder: RunFolder, *, launch: Launch = train_here) -> None:
    """Make the bundle of a finished run again, if it is gone; leave any other folder as it is.

    Raises:
        TrainingError: the checkpoints are gone too, or another process works on the run.
        RecmoeError: the data of the run is not there any more, or has changed.
    """
    if folder.state.get("status") == "finished" and not folder.bundle.exists():
        config = experiment_from_json(folder.config.read_text(encoding="utf-8"))
        train_run(config, folder.root, resume=True, launch=launch, is_quiet=True)


def _train(
    config: ExperimentConfig, folder: RunFolder, *, launch: Launch, is_quiet: bool, is_strict: bool
) -> RunResult:
    """Train in a folder that is claimed and has started."""
    known_id = folder.state.get("tracking_run_id")
    is_recorded = folder.state.get("status") == "finished"
    tracker = config.tracking.build(run_name=folder.root.resolve().name, folder=RUNS, run_id=known_id)
    folder.update_state(status="running", tracking_run_id=tracker.run_id, tracking_page=tracker.page)
    try:
        tracker.set_tags(run_facts(config, folder))
        tracker.log_config(dump_config(config))
        encoder = prepare(config, folder, is_quiet=is_quiet)
        if config.model.pretraining is None:
            warn_of_leaks(config, folder, is_strict=is_strict)
            keep_baselines(config, folder, encoder, is_quiet=is_quiet)
        teacher = teacher_of(folder)
        if teacher is not None and not is_recorded:
            stream = open_split(config, folder, "train")
            keep_teacher_rows(teacher, folder, stream, config.task_set(), is_quiet=is_quiet)
        if known_id is None:
            record_files(config, folder, tracker)
            tracker.log_metrics(id_metrics(folder), step=0)
        with CurveFollower(
            folder.metrics,
            num_steps=lambda: folder.state.get("num_steps"),
            pass_on=lambda step, values: tracker.log_metrics(tracked(values), step=step),
            is_quiet=is_quiet,
        ):
            launch(config, folder)
        if folder.state["status"] == "interrupted":
            tracker.finish("killed")
            return _result(folder)
        keep_cost(config, folder)
        if not is_recorded:
            record_results(folder, tracker)
    except BaseException as error:
        with suppress(OSError):  # A full disk is the error to tell, not that its status could not be written.
            folder.update_state(status="failed")
        tracker.finish("failed" if isinstance(error, RecmoeError) else "killed")
        raise
    tracker.finish()
    # In data.cache_dir they stay, for the next run.
    shutil.rmtree(folder.encoded, ignore_errors=True)
    shutil.rmtree(folder.teacher, ignore_errors=True)
    folder.update_state(status="finished")
    return _result(folder)


def prepare(
    config: ExperimentConfig, folder: RunFolder, reading: Reading | None = None, *, is_quiet: bool = True
) -> FeatureEncoder:
    """Learn vocabularies and statistics from the training split, once per run, check all rows and encode the splits.

    Files that were mended before the first checkpoint are learnt from anew.

    Args:
        reading: who reads the rows; this process by default.
        is_quiet: no progress on the terminal.

    Raises:
        TrainingError: the files are not those that the run's checkpoints belong to.
        RecmoeError: what data and schema have to object.
    """
    stream = open_split(config, folder, "train")
    known = folder.state.get("train_files")
    has_checkpoints = bool(committed(folder.checkpoints))
    if has_checkpoints:
        _check_files(config, folder, stream)
    if folder.encoder.exists() and (has_checkpoints or known == stream.identity):
        try:
            encoder = FeatureEncoder.load(folder.encoder)
        except DataError as error:
            raise TrainingError(
                f"{error}; or remove {folder.encoder} and resume: it is learnt again from the same files"
            ) from error
        splits = _with_others(config, folder, stream)
        # They are there already, unless they are lost or damaged.
        keep_splits(config, folder, splits, encoder, is_quiet=is_quiet)
        if not folder.facts.exists():
            learn_facts(config, encoder, stream, splits.get("validation")).write(folder)
        return encoder
    splits = _with_others(config, folder, stream)
    folder.update_state(skipped=_skipped(splits))
    shutil.rmtree(folder.encoded, ignore_errors=True)  # By an encoder that is not this run's any more.
    earlier = _earlier(config, folder)
    by = reading or ReadHere()
    base = None if earlier is None else earlier.encoder
    encoder = by.learn(config, stream, scratch=folder.scratch, base=base)
    if earlier is not None:
        check_widths(earlier, encoder)
        check_rate(earlier, config.model.wide)
    # Others leave the splits to the run itself: it may be far away when training begins.
    if reading is not None or not keep_splits(config, folder, splits, encoder, is_quiet=is_quiet):
        for split, rows in splits.items():
            # Of the training rows, only ids that are row numbers have not been looked at yet.
            if split != "train" or has_index(config):
                by.check(rows, encoder, scratch=folder.scratch)
    learn_facts(config, encoder, stream, splits.get("validation")).write(folder)
    encoder.save(folder.encoder)
    folder.update_state(
        id_updates={table: asdict(ids.last) for table, ids in encoder.state.dynamic.items() if ids.last}
    )
    folder.update_state(
        train_files=stream.identity,
        num_train_rows=stream.num_rows,
        other_files={split: rows.identity for split, rows in splits.items()},
    )
    return encoder


def _check_files(config: ExperimentConfig, folder: RunFolder, stream: ParquetStream) -> None:
    """Check that a run that has begun goes on with the files it began with, wherever they lie now.

    Raises:
        TrainingError: they are others.
    """
    state = folder.state
    moved: list[Split] = state.get("moved", [])
    known = state.get("train_files")
    if known not in (None, stream.identity):
        if "train" in moved:
            raise TrainingError(_other_files(folder, "train", config.data.train))
        raise TrainingError(
            f"{folder.root}: the training files have changed since the run started, and what it has still to read "
            "is told by their rows; put them back as they were, or start afresh in another --run-dir"
        )
    for split in moved:
        if split != "train":
            paths = getattr(config.data, split)
            known = state.get("other_files", {}).get(split)
            if not paths or open_split(config, folder, split).identity != known:
                raise TrainingError(_other_files(folder, split, paths))
    if moved:
        folder.keep_config(dump_config(config))


def _other_files(folder: RunFolder, split: Split, paths: Sequence[str]) -> str:
    return (
        f"{folder.root}: data.{split} names other files than those that the run began with; it goes on with the same "
        f"files in another place, but not with {', '.join(paths) or 'none'}: name them, or start afresh in another "
        "--run-dir"
    )


def _earlier(config: ExperimentConfig, folder: RunFolder) -> EarlierModel | None:
    """The model that the run was told to go on from."""
    told = folder.state.get("warm_start")
    return None if told is None else open_warm_start(WarmStart.from_json(told), config)


def _with_others(config: ExperimentConfig, folder: RunFolder, stream: ParquetStream) -> dict[Split, ParquetStream]:
    """The training split and those that the config names beside it."""
    splits: dict[Split, ParquetStream] = {"train": stream}
    for split in ("validation", "test"):
        if getattr(config.data, split):
            splits[split] = open_split(config, folder, split)
    return splits


def _skipped(splits: Mapping[Split, ParquetStream]) -> dict[str, str]:
    """What damage has cost each split, for the end of the run; each piece is told now."""
    told: dict[str, str] = {}
    for split, stream in splits.items():
        for reason in stream.skipped:
            _logger.warning("%s", reason)
        if stream.num_skipped_rows or stream.num_skipped_files:
            told[split] = (
                f"{stream.num_skipped_rows:,} rows and {stream.num_skipped_files:,} files that cannot be read "
                f"(data.on_error: skip); {stream.num_rows:,} rows remain"
            )
            _logger.warning("%s: left out %s", split, told[split])
    return told


def _result(folder: RunFolder) -> RunResult:
    state = folder.state
    report = None
    if state["status"] in ("trained", "finished") and folder.report.exists():
        report = Report.from_json(folder.report.read_text(encoding="utf-8"))
    return RunResult(
        folder=folder,
        is_interrupted=state["status"] == "interrupted",
        report=report,
        samples_per_s=state.get("samples_per_s", 0.0),
    )
