"""fit(), train() and evaluate(): what ``recmoe init``, ``train`` and ``evaluate`` do, called from Python."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recmoe.config import config_from_dict, dump_config
from recmoe.data.splits import SPLITS, Split
from recmoe.errors import ConfigError, TrainingError
from recmoe.evaluation.report import Report
from recmoe.experiment import ExperimentConfig, load_experiment
from recmoe.face.chosen_tasks import TaskChoice
from recmoe.face.fitted_model import FittedModel
from recmoe.face.frames import Rows, as_files, in_python_words
from recmoe.face.split_files import SplitFiles
from recmoe.growth.earlier import WarmStart
from recmoe.onboarding.split_rule import DEFAULT_SHARES, Shares, SplitBy
from recmoe.runs.evaluation import evaluate_bundle
from recmoe.runs.source import load_ranker
from recmoe.runs.train import train_run
from recmoe.runs.warm_start import find_warm_start

ConfigSource = str | Path | Mapping[str, Any] | ExperimentConfig
"""A YAML file, what it holds, or the config itself."""


def fit(
    data: Rows | Mapping[Split, Rows],
    *,
    tasks: TaskChoice | None = None,
    config: ConfigSource | None = None,
    overrides: Sequence[str] = (),
    run_dir: str | Path | None = None,
    leave_out: Sequence[str] = (),
    split: SplitBy = "auto",
    shares: Shares = DEFAULT_SHARES,
    seed: int | None = None,
    strict: bool = False,
    quiet: bool = False,
) -> FittedModel:
    """Train and evaluate a model on a log: ``recmoe init`` where no config is given, then ``recmoe train``.

    Args:
        data: a pandas frame, an Arrow table or files; or one of these for train, validation and test.
        tasks: the outcomes to learn, as columns (``["click", "rating>=4"]``) or as the section ``tasks`` of a config;
            by default all that are found. Those that they depend on are learned with them.
        config: what to train in place of what ``init`` writes; its own files are not read.
        overrides: ``key.path=value`` as on the command line; ``data.csv.separator=;`` says how files are read.
        run_dir: folder of the run, with the splits in ``<run_dir>-log``. By default both are in a temporary folder
            that lasts as long as the result, and the run is not recorded in MLflow.
        leave_out: columns that the model must not read, where no config is given.
        split: what rows are split by: time, else lists, else rows at random.
        shares: of the rows, for train, validation and test.
        seed: of the split, the initial weights and the order of rows; by default that of the config, or 0.
        strict: a feature that may know the answer is an error, not a warning.
        quiet: no progress on the terminal.

    Raises:
        RecmoeError: data, tasks, config or folder are not usable; the message says which and why.
    """
    if config is not None and (tasks is not None or leave_out):
        given = "tasks" if tasks is not None else "leave_out"
        raise ConfigError(f"fit takes {given} or a config, not both: the config says what is learned and read")
    root, owned = _root(run_dir)
    log = root.with_name(f"{root.name}-log")
    changes = [] if seed is None else [f"seed={seed}"]
    changes += ["tracking={kind: none}"] if run_dir is None else []
    changes += overrides
    reading = [change for change in overrides if change.startswith("data.")]
    files = SplitFiles(data, log, reading, split, shares, seed or 0)
    try:
        with in_python_words():
            if config is None:
                path = files.starter(root.name, tasks=tasks, leave_out=leave_out)
                experiment, text = load_experiment(path, changes), path.read_text(encoding="utf-8")
            else:
                experiment, text = _configured(config, files.for_config(), changes), None
            return _trained(experiment, root, config_yaml=text, strict=strict, quiet=quiet, owned=owned)
    except BaseException:
        if not root.exists():  # A run that began can go on with the splits.
            shutil.rmtree(log, ignore_errors=True)
        if owned is not None:
            shutil.rmtree(owned, ignore_errors=True)
        raise


def train(
    config: ConfigSource,
    run_dir: str | Path,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    warm_start: str | None = None,
    registry: str | None = None,
    strict: bool = False,
    quiet: bool = False,
) -> FittedModel:
    """Train, evaluate and bundle an experiment; see ``recmoe train``.

    Args:
        resume: go on with the run in the folder.
        warm_start: a run, a bundle or a registered version to go on from.
        registry: URI of the registry; by default MLFLOW_TRACKING_URI, else the one in ``runs/``.
        strict: a feature that may know the answer is an error, not a warning.
        quiet: no progress on the terminal.

    Raises:
        TrainingError: the folder belongs to another run, or training was stopped.
        RecmoeError: data, config, device or store are not usable.
    """
    with in_python_words():
        experiment = _configured(config, None, overrides)
        earlier = None if warm_start is None else find_warm_start(warm_start, registry_uri=registry)
        return _trained(experiment, Path(run_dir), resume=resume, warm_start=earlier, strict=strict, quiet=quiet)


def evaluate(
    model: FittedModel | str | Path,
    *,
    data: Rows | None = None,
    split: Split = "test",
    overrides: Sequence[str] = (),
    baselines: bool = False,
    registry: str | None = None,
) -> Report:
    """Measure a model on a split of its config, or on other rows; see ``recmoe evaluate``.

    Args:
        model: what ``fit`` gave, a run's or a bundle's folder, ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        data: a frame or files to use in place of the split.
        baselines: train simple models on the training split and compare with them; by default those of the run are
            there where the rows are those of its report.
        registry: URI of the registry; by default MLFLOW_TRACKING_URI, else the one in ``runs/``.

    Raises:
        RecmoeError: there is no such model, or the rows cannot be read or measured.
    """
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder, in_python_words():
        ranker = model.ranker if isinstance(model, FittedModel) else load_ranker(str(model), registry_uri=registry)
        files = [] if data is None else as_files(data, Path(folder) / "rows.parquet")
        evaluation = evaluate_bundle(
            ranker.bundle,
            split=split,
            paths=files,
            overrides=overrides,
            cache_dir=Path(folder) / "cache",
            with_baselines=baselines,
        )
    return evaluation.report


def _root(run_dir: str | Path | None) -> tuple[Path, Path | None]:
    """The run's folder, and the temporary one around it if there is one."""
    if run_dir is None:
        owned = Path(tempfile.mkdtemp(prefix="recmoe-"))
        return owned / "model", owned
    root = Path(run_dir)
    for folder in (root, root.with_name(f"{root.name}-log")):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise TrainingError(f"{folder} is there already; choose another run_dir, or go on with recmoe.train")
    return root, None


def _configured(
    config: ConfigSource, files: Mapping[Split, Sequence[str]] | None, overrides: Sequence[str]
) -> ExperimentConfig:
    """The config with its overrides, and with other files where they are given."""
    changes = [*overrides]
    if files is not None:
        changes = [f"data.{name}={json.dumps(list(files.get(name, ())))}" for name in SPLITS] + changes
    if isinstance(config, str | Path):
        return load_experiment(Path(config), changes)
    values = dump_config(config) if isinstance(config, ExperimentConfig) else config
    return config_from_dict(ExperimentConfig, values, overrides=changes)


def _trained(
    config: ExperimentConfig,
    root: Path,
    *,
    resume: bool = False,
    warm_start: WarmStart | None = None,
    config_yaml: str | None = None,
    strict: bool,
    quiet: bool,
    owned: Path | None = None,
) -> FittedModel:
    result = train_run(
        config.learning_tasks(), root, resume=resume, is_quiet=quiet, warm_start=warm_start, is_strict=strict
    )
    if result.is_interrupted:
        step = result.folder.state["step"]
        how = "" if owned is not None else f"; go on with recmoe.train(config, {str(root)!r}, resume=True)"
        raise TrainingError(f"stopped at step {step:,}{how}")
    return FittedModel(root, config, config_yaml=config_yaml, report=result.report, owned=owned)
