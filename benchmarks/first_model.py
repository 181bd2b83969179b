"""How good the first model of a log is: ``init`` and ``train`` as written, against what an outsider would try.

python -m benchmarks.first_model short_video shop_events ratings --seeds 0,1,2
"""

# N rows of the test, R resamples, S seeds

import argparse
import json
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from benchmarks.awkward_logs import MAKERS
from benchmarks.first_model_rows import Row, table
from benchmarks.outsiders import BASELINES, Outsiders, Target, outsider_columns
from benchmarks.plain_logs import NOT_READ, OUTCOMES, plain_log
from recmoe.data.parquet import ParquetStream
from recmoe.data.splits import SPLITS, Split
from recmoe.errors import DataError
from recmoe.evaluation.bootstrap import draw_counts
from recmoe.evaluation.metrics.auc import Auc
from recmoe.evaluation.metrics.metric import Metric
from recmoe.evaluation.metrics.rmse import Rmse
from recmoe.evaluation.predictions import Predictions
from recmoe.experiment import ExperimentConfig, load_experiment
from recmoe.export.bundle import ModelBundle
from recmoe.features.label_values import encode_labels
from recmoe.onboarding.starter import StarterConfig, starter_config
from recmoe.runs.evaluation import evaluate_bundle
from recmoe.runs.train import train_run
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.task import has_binary_label

Floats = npt.NDArray[np.float64]

CACHE = Path(__file__).parent / ".cache" / "first_model"
NUM_RESAMPLES = 300
MIN_POSITIVE = 5
"""Below that an AUC says nothing."""


@dataclass(frozen=True)
class Log:
    """A log to try, and what is known of it."""

    name: str
    file: str
    """A Parquet or CSV file, or a glob."""
    outcomes: tuple[str, ...] = ()
    not_read: tuple[str, ...] = ()
    truth: Mapping[str, Floats] | None = None


def measure(log: Log, options: argparse.Namespace) -> list[Row]:
    """Try one log: a row per task and architecture."""
    folder = Path(options.to) / log.name
    shutil.rmtree(folder, ignore_errors=True)
    starter, seconds = _timed(starter_config, [Path(log.file)], output_dir=folder / "log")
    config_path = _with_all_outcomes(log, starter, folder / "log")
    config = load_experiment(config_path, options.override)
    splits = {split: _read(config, split, folder) for split in SPLITS}
    targets = _targets(config, splits)
    kinds = {column.name: config.inputs.features[name].kind for name, column in config.inputs.raw_columns()}
    if log.outcomes:
        left_out = [*log.outcomes, *log.not_read]
    else:
        left_out = [name for name in splits["train"].column_names if name not in kinds]
    columns = outsider_columns(splits["train"], left_out=left_out, feature_kinds=kinds)
    outsiders = Outsiders(splits, columns, CACHE / "baselines")
    baselines = {
        name: {task: outsiders.predict(name, target) for task, target in targets.items()} for name in BASELINES
    }
    rows: list[Row] = []
    for kind in options.kinds:
        runs = [_train(config_path, kind, seed, folder, options.override) for seed in options.seeds]
        predictions = [run for run, _ in runs]
        spent = seconds + sum(spent for _, spent in runs) / len(runs)
        rows += [
            _row(
                log, kind, config, task, target, {name: baselines[name][task] for name in BASELINES}, predictions, spent
            )
            for task, target in targets.items()
        ]
    return [row for row in rows if row.num_positive >= MIN_POSITIVE]


def _timed(function: Any, *arguments: Any, **named: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    return function(*arguments, **named), time.perf_counter() - start


def _with_all_outcomes(log: Log, starter: StarterConfig, folder: Path) -> Path:
    """The config as written; outcomes that ``init`` did not find become tasks by hand, said so."""
    assert starter.path is not None
    document: dict[str, Any] = yaml.safe_load(starter.text)
    found = {task.get("label") for task in document["tasks"].values()}
    missed = [name for name in log.outcomes if name not in found]
    if not missed:
        return starter.path
    features = document["inputs"]["features"]
    leaks = [name for name, feature in features.items() if feature.get("column", name) in missed]
    print(f"{log.name}: by hand tasks: {', '.join(missed)}; init made features of {', '.join(leaks) or 'none'}")
    for name in leaks:
        del features[name]
    document["evaluation"]["slices"] = [name for name in document["evaluation"]["slices"] if name not in missed]
    table = pq.read_table(folder / "train.parquet", columns=missed)
    for name in missed:
        is_binary = set(table[name].unique().to_pylist()) <= {0, 1, None}
        document["tasks"][name] = (
            {"kind": "binary", "label": name}
            if is_binary
            else {"kind": "regression", "label": name, "transform": "log1p", "weight": 0.2}
        )
    path = folder / "by_hand.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return path


def _read(config: ExperimentConfig, split: Split, folder: Path) -> pa.Table:
    stream: ParquetStream = config.data.build(split, seed=0, cache_dir=folder / "csv")
    return pa.concat_tables(list(stream.chunks(batch_size=65_536)))


def _targets(config: ExperimentConfig, splits: Mapping[Split, pa.Table]) -> dict[str, Target]:
    """Labels of each task as it learns them: NaN outside its space, amounts on the scale of its error."""
    tasks = config.task_set()
    labels: dict[str, dict[Split, Floats]] = {name: {} for name in tasks.names}
    for split, rows in splits.items():
        labels_NT, weights_NT = (
            part.numpy().astype(np.float64) for part in tasks.targets(encode_labels(rows, tasks.label_columns))
        )
        for place, name in enumerate(tasks.names):
            label_N = np.where(weights_NT[:, place] > 0, labels_NT[:, place], np.nan)
            labels[name][split] = _on_scale(tasks, name, label_N)
    return {name: Target(has_binary_label(tasks.kinds[name]), labels[name]) for name in tasks.names}


def _on_scale(tasks: TaskSet, task: str, values_N: Floats) -> Floats:
    on_scale_N: Floats = tasks.scale(task).to(torch.from_numpy(values_N)).numpy()
    return on_scale_N


def _train(
    config_path: Path, kind: str, seed: int, folder: Path, overrides: Sequence[str]
) -> tuple[Predictions, float]:
    """The test rows by a model trained as a user would, and the seconds up to its report."""
    changes = [f"seed={seed}", "tracking={kind: none}", *overrides]
    plain = load_experiment(config_path)
    if plain.model.architecture.kind != kind:
        hidden = list(getattr(plain.model.architecture, "expert_hidden", ()))
        changes += [f"model.architecture.kind={kind}", *([f"model.architecture.expert_hidden={hidden}"] * bool(hidden))]
    # Errors are measured on the scale of the task, on which the mean of an amount is off by design.
    changes += [
        f"tasks.{name}.predicts=median"
        for name, task in plain.tasks.items()
        if task.kind == "regression" and task.transform == "log1p"
    ]
    config = load_experiment(config_path, changes)
    root = folder / f"{kind}-{seed}"
    result, seconds = _timed(train_run, config, root, resume=False, is_quiet=True)
    evaluation = evaluate_bundle(
        ModelBundle.load(result.folder.bundle), overrides=["evaluation.num_resamples=0"], cache_dir=folder / "csv"
    )
    print(f"{folder.name} {kind} seed {seed}: {seconds:.0f} s, {result.folder.state['step']} steps", flush=True)
    return evaluation.scored.predictions, seconds


def _row(
    log: Log, kind: str, config: ExperimentConfig, task: str, target: Target, baselines: Mapping[str, Floats],
    predictions: Sequence[Predictions], seconds: float,
) -> Row:  # fmt: skip
    label_N = target.labels["test"]
    is_known_N = np.isfinite(label_N)
    place = predictions[0].task_names.index(task)
    models = [
        _on_scale(config.task_set(), task, run.predictions_NT[:, place].astype(np.float64)) for run in predictions
    ]
    groups_N = predictions[0].groups_N
    counts = list(
        draw_counts(num_rows=int(is_known_N.sum()), groups_N=None if groups_N is None else groups_N[is_known_N],
                    num_resamples=NUM_RESAMPLES, seed=0)
    )  # fmt: skip
    names = [*baselines, *(f"seed {seed}" for seed in range(len(models)))]
    values: dict[str, float] = {}
    resampled: dict[str, Floats] = {}
    for name, scores_N in zip(names, [*baselines.values(), *models], strict=True):
        metric: Metric = Auc() if target.is_binary else Rmse()
        metric.update(scores_N[is_known_N], label_N[is_known_N])
        sign = 1.0 if target.is_binary else -1.0
        values[name] = sign * float(metric.compute().values_R[0])
        resampled[name] = sign * np.concatenate([metric.compute(counts_RN).values_R for counts_RN in counts])
    better = max(baselines, key=lambda name: values[name])
    model_R = np.mean([resampled[name] for name in names[len(baselines) :]], axis=0)
    low, high = np.nanpercentile(resampled[better], [2.5, 97.5])
    difference_low, difference_high = np.nanpercentile(model_R - resampled[better], [2.5, 97.5])
    is_compressed = getattr(config.tasks[task], "transform", "none") == "log1p"
    return Row(
        log=log.name, kind=kind, task=task,
        metric="auc" if target.is_binary else "-rmse of log1p" if is_compressed else "-rmse",
        num_positive=int((label_N[is_known_N] > 0).sum()),
        best=_best(log, config, task, label_N),
        logistic=values["logistic"], lightgbm=values["lightgbm"], low=float(low), high=float(high),
        models=[values[name] for name in names[len(baselines) :]],
        difference_low=float(difference_low), difference_high=float(difference_high), seconds=seconds,
    )  # fmt: skip


def _best(log: Log, config: ExperimentConfig, task: str, label_N: Floats) -> float | None:
    """What the truth reaches, where the test is the end of the log."""
    label = getattr(config.tasks[task], "label", None)
    if log.truth is None or label is None or label not in log.truth:
        return None
    truth_N = log.truth[label][-label_N.size :]
    is_known_N = np.isfinite(label_N)
    metric: Metric = Auc() if has_binary_label(config.task_set().kinds[task]) else Rmse()
    metric.update(truth_N[is_known_N], label_N[is_known_N])
    value = float(metric.compute().values_R[0])
    return value if isinstance(metric, Auc) else -value


def find_log(name: str, options: argparse.Namespace) -> Log:
    """A planted log or a public data set by name, written as one Parquet file.

    Raises:
        DataError: the name is unknown, or RECMOE_DATA does not name the folder of the public data sets.
    """
    folder = Path(options.to) / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    if name in MAKERS:
        maker = MAKERS[name]
        made = maker(seed=options.log_seed) if options.rows is None else maker(options.rows, seed=options.log_seed)
        return Log(name, str(made.write(folder)), made.outcomes, (made.time,), made.truth)
    if name not in OUTCOMES:
        raise DataError(f"no log is called {name}; there are {', '.join([*MAKERS, *OUTCOMES])}, and --log FILE")
    if "RECMOE_DATA" not in os.environ:
        raise DataError(f"{name} needs the published files; set RECMOE_DATA to the folder that holds them")
    rows = plain_log(name, Path(os.environ["RECMOE_DATA"]))
    rows = rows if options.rows is None else rows.slice(max(rows.num_rows - options.rows, 0))
    path = folder / f"{name}.parquet"
    pq.write_table(rows, path)
    return Log(name, str(path), OUTCOMES[name], tuple(set(NOT_READ[name]) & set(rows.column_names)))


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help=f"{', '.join([*MAKERS, *OUTCOMES])}; the planted ones by default")
    parser.add_argument("--log", action="append", default=[], help="a Parquet or CSV file of your own; repeatable")
    parser.add_argument("--rows", type=int, help="rows of each named log; public ones are cut to their last rows")
    parser.add_argument("--log-seed", type=int, default=0, help="of the planted logs")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=["mmoe", "ple"])
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--override", action="append", default=[], help="KEY=VALUE for the config; repeatable")
    parser.add_argument("--to", type=Path, default=CACHE, help="folder for logs, runs and results.json")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure the logs named, print a table and keep it as results.json."""
    options = parse_options(sys.argv[1:])
    logging.getLogger("recmoe").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="The argument 'eval_set' is deprecated")
    logs = [Log(Path(file).name.split(".")[0], file) for file in options.log]
    names = options.names or ([] if logs else list(MAKERS))
    rows: list[Row] = []
    for log in [*logs, *(find_log(name, options) for name in names)]:
        rows += measure(log, options)
        print(table([row for row in rows if row.log == log.name]), flush=True)
    (options.to / "results.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print(f"{sum(bool(row.mark) for row in rows)} of {len(rows)} are below the better baseline", file=sys.stderr)


if __name__ == "__main__":
    main()
