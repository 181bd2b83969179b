"""fit(), train() and evaluate(): what ``recmoe init``, ``train`` and ``evaluate`` do, called from Python."""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from recmoe.config import config_from_dict, dump_config
from recmoe.data.splits import SPLITS, Split
from recmoe.errors import ConfigError, DataError, TrainingError
from recmoe.evaluation.report import Report
from recmoe.experiment import ExperimentConfig, load_experiment
from recmoe.face.chosen_tasks import TaskChoice, choose_tasks, outcome_columns
from recmoe.face.fitted_model import FittedModel
from recmoe.face.frames import Rows, as_files, in_python_words
from recmoe.onboarding.split_rule import DEFAULT_SHARES, Shares, SplitBy
from recmoe.onboarding.starter import split_log, starter_config
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
    split: SplitBy = "auto",
    shares: Shares = DEFAULT_SHARES,
    seed: int | None = None,
    quiet: bool = False,
) -> FittedModel:
    """Train and evaluate a model on a log: ``recmoe init`` where no config is given, then ``recmoe train``.

    Args:
        data: a pandas frame, an Arrow table or files; or one of these for train, validation and test.
        tasks: the outcomes to learn, as columns (``["click", "rating>=4"]``) or as the section ``tasks`` of a config;
            by default all that are found. Those that they depend on are learned with them.
        config: what to train in place of what ``init`` writes; its own ``data`` section is not read.
        overrides: ``key.path=value`` as on the command line.
        run_dir: folder of the run, with the splits in ``<run_dir>-log``. By default both are in a temporary folder
            that lasts as long as the result, and the run is not recorded in MLflow.
        split: what rows are split by: time, else lists, else rows at random.
        shares: of the rows, for train, validation and test.
        seed: of the split, the initial weights and the order of rows; by default that of the config, or 0.
        quiet: no progress on the terminal.

    Raises:
        RecmoeError: data, tasks, config or folder are not usable; the message says which and why.
    """
    if tasks is not None and config is not None:
        raise ConfigError("fit takes tasks or a config, not both: the config has its own section tasks")
    root, owned = _root(run_dir)
    log = root.with_name(f"{root.name}-log")
    try:
        with in_python_words():
            changes = [] if seed is None else [f"seed={seed}"]
            changes += ["tracking={kind: none}"] if run_dir is None else []
            if config is None:
                experiment, text = _starter(
                    data, log, root.name, tasks, [*changes, *overrides], split, shares, seed or 0
                )
            else:
                files = _split_files(data, log, split, shares, seed or 0)
                experiment, text = _configured(config, files, [*changes, *overrides]), None
            return _trained(experiment, root, config_yaml=text, quiet=quiet, owned=owned)
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
    quiet: bool = False,
) -> FittedModel:
    """Train, evaluate and bundle an experiment; see ``recmoe train``.

    Args:
        resume: go on with the run in the folder.
        warm_start: a run, a bundle or a registered version to go on from.
        registry: URI of the registry; by default MLFLOW_TRACKING_URI, else the one in ``runs/``.

    Raises:
        TrainingError: the folder belongs to another run, or training was stopped.
        RecmoeError: data, config, device or store are not usable.
    """
    with in_python_words():
        experiment = _configured(config, None, overrides)
        return _trained(experiment, Path(run_dir), resume=resume, warm_start=warm_start, registry=registry, quiet=quiet)


def evaluate(
    model: FittedModel | str | Path,
    *,
    data: Rows | None = None,
    split: Split = "test",
    overrides: Sequence[str] = (),
    registry: str | None = None,
) -> Report:
    """Measure a model on a split of its config, or on other rows; see ``recmoe evaluate``.

    Args:
        model: what ``fit`` gave, a run's or a bundle's folder, ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        data: a frame or files to use in place of the split.

    Raises:
        RecmoeError: there is no such model, or the rows cannot be read or measured.
    """
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder, in_python_words():
        ranker = model.ranker if isinstance(model, FittedModel) else load_ranker(str(model), registry_uri=registry)
        files = [] if data is None else as_files(data, Path(folder) / "rows.parquet")
        return evaluate_bundle(
            ranker.bundle, split=split, paths=files, overrides=overrides, cache_dir=Path(folder) / "cache"
        ).report


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


def _starter(
    data: Rows | Mapping[Split, Rows],
    log: Path,
    name: str,
    tasks: TaskChoice | None,
    overrides: Sequence[str],
    split: SplitBy,
    shares: Shares,
    seed: int,
) -> tuple[ExperimentConfig, str]:
    """Splits and config as ``init`` makes them, with the tasks that were chosen."""
    given = _given_splits(data, log)
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        files = given["train"] if given is not None else as_files(_one(data), Path(folder) / f"{name}.parquet")
        labels = [] if tasks is None else outcome_columns(tasks)
        starter = starter_config(
            [Path(file) for file in files],
            output_dir=log if given is None else None,
            seed=seed,
            split_by=split,
            shares=shares,
            labels=labels,
        )
    text = starter.text
    if tasks is not None or given is not None:
        document = yaml.safe_load(text)
        if tasks is not None:
            choose_tasks(document, tasks)
        if given is not None:
            document["data"] = given
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    text = re.sub(r"^name: .*$", f"name: {json.dumps(name, ensure_ascii=False)}", text, count=1, flags=re.MULTILINE)
    log.mkdir(parents=True, exist_ok=True)
    path = log / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_experiment(path, overrides), text


def _split_files(
    data: Rows | Mapping[Split, Rows], log: Path, split: SplitBy, shares: Shares, seed: int
) -> dict[Split, list[str]]:
    """The files of each split; one log is shared out as ``init`` does."""
    given = _given_splits(data, log)
    if given is not None:
        return given
    with tempfile.TemporaryDirectory(prefix="recmoe-") as folder:
        files = as_files(_one(data), Path(folder) / "log.parquet")
        split_log([Path(file) for file in files], output_dir=log, seed=seed, split_by=split, shares=shares)
    return {name: [str(log.resolve() / f"{name}.parquet")] for name in SPLITS}


def _given_splits(data: Rows | Mapping[Split, Rows], log: Path) -> dict[Split, list[str]] | None:
    if not isinstance(data, Mapping):
        return None
    unknown = [name for name in data if name not in SPLITS]
    if unknown or "train" not in data:
        raise DataError(f"data: expected splits train, validation and test, train at least; got {', '.join(data)}")
    found = {name: as_files(rows, log / f"{name}.parquet", what=f"data[{name!r}]") for name, rows in data.items()}
    # Paths count from the working directory, also after it has changed.
    return {name: [str(Path(file).resolve()) for file in files] for name, files in found.items()}


def _one(data: Rows | Mapping[Split, Rows]) -> Rows:
    assert not isinstance(data, Mapping)
    return data


def _configured(
    config: ConfigSource, files: Mapping[Split, Sequence[str]] | None, overrides: Sequence[str]
) -> ExperimentConfig:
    """The config with its overrides, and with other files where they are given."""
    places = [f"data.{name}={json.dumps(paths)}" for name, paths in (files or {}).items()]
    places += [f"data.{name}=[]" for name in SPLITS if files is not None and name not in files]
    changes = [*places, *overrides]
    if isinstance(config, str | Path):
        return load_experiment(Path(config), changes)
    if isinstance(config, ExperimentConfig):
        return config_from_dict(ExperimentConfig, dump_config(config), overrides=changes)
    return config_from_dict(ExperimentConfig, config, overrides=changes)


def _trained(
    config: ExperimentConfig,
    root: Path,
    *,
    resume: bool = False,
    warm_start: str | None = None,
    registry: str | None = None,
    config_yaml: str | None = None,
    quiet: bool,
    owned: Path | None = None,
) -> FittedModel:
    earlier = None if warm_start is None else find_warm_start(warm_start, registry_uri=registry)
    result = train_run(config, root, resume=resume, is_quiet=quiet, warm_start=earlier)
    if result.is_interrupted:
        step = result.folder.state["step"]
        how = "" if owned is not None else f"; go on with recmoe.train(config, {str(root)!r}, resume=True)"
        raise TrainingError(f"stopped at step {step:,}{how}")
    return FittedModel(root, config, config_yaml=config_yaml, report=result.report, owned=owned)
