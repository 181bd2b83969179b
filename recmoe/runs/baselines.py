"""Baselines of a run: learned once by the driver before training, then set beside the model's numbers."""

import hashlib
import json
import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recmoe.baselines.fit import FittedBaselines, fit_baselines
from recmoe.baselines.rows import RawRows, interval_rows, read_rows, spread_intervals
from recmoe.config import dump_config
from recmoe.data.loader import Split
from recmoe.data.parquet import ParquetStream
from recmoe.errors import EvaluationError
from recmoe.evaluation.baselines import BaselineKind, Baselines, dump
from recmoe.evaluation.compare import baseline_values, chance_values, compare
from recmoe.evaluation.evaluate import EvaluationConfig
from recmoe.evaluation.predictions import Predictions
from recmoe.experiment import ExperimentConfig
from recmoe.features.encoder import FeatureEncoder
from recmoe.runs.folder import RunFolder, write_atomically
from recmoe.runs.splits import open_split

MOST_ROWS: dict[Split, int] = {"train": 1_000_000, "validation": 200_000, "test": 300_000}
"""Rows of a split that are read for baselines; of larger ones, intervals at equal distances."""

SCORED = "baselines.npz"
"""The baselines' predictions of the test rows, beside ``baselines.json``."""


def keep_baselines(config: ExperimentConfig, folder: RunFolder, encoder: FeatureEncoder, *, is_quiet: bool) -> None:
    """Compute the baselines of a run, unless it has them already or its config wants none."""
    if not (config.evaluation.baselines and config.data.test):
        folder.baselines.unlink(missing_ok=True)
        return
    streams = {split: open_split(config, folder, split) for split in MOST_ROWS if getattr(config.data, split)}
    identity = _identity(config, streams)
    if folder.baselines.exists() and folder.state.get("baselines_of") == identity:
        return
    started_s = time.monotonic()

    def tell(text: str) -> None:
        if not is_quiet:
            print(f"baselines: {text} ({time.monotonic() - started_s:.0f} s)", file=sys.stderr)

    baselines, predictions_NT, rows_N = learn_baselines(config, streams, encoder, on_progress=tell)
    arrays: dict[str, Any] = {"rows": rows_N, **{str(kind): values_NT for kind, values_NT in predictions_NT.items()}}
    with (folder.root / SCORED).open("wb") as file:
        np.savez(file, **arrays)
    write_atomically(folder.baselines, dump(baselines))
    folder.update_state(baselines_of=identity)


Learned = tuple[Baselines, dict[BaselineKind, NDArray[np.float64]], NDArray[np.int64]]


def learn_baselines(
    config: ExperimentConfig,
    streams: Mapping[Split, ParquetStream],
    encoder: FeatureEncoder,
    *,
    on_progress: Callable[[str], object] = str,
) -> Learned:
    """Baselines not yet compared with a model, their predictions, and the numbers of the test rows they belong to."""
    tasks = config.task_set()
    intervals = {split: spread_intervals(stream.num_rows, MOST_ROWS[split]) for split, stream in streams.items()}
    rows: dict[Split, RawRows] = {
        split: read_rows(stream, encoder, tasks, intervals[split]) for split, stream in streams.items()
    }
    fitted = fit_baselines(
        config.evaluation.baselines,
        dict(config.tasks),
        train=rows["train"],
        validation=rows.get("validation"),
        test=rows["test"],
        num_threads=torch.get_num_threads(),
        seed=config.seed,
        on_progress=on_progress,
    )
    for split in streams:
        if rows[split].num_rows < streams[split].num_rows:
            fitted.notes.append(
                f"{split}: baselines read {rows[split].num_rows:,} of {streams[split].num_rows:,} rows, "
                "in intervals at equal distances"
            )
    return _measured(config, fitted, rows["test"]), fitted.predictions_NT, interval_rows(intervals["test"])


def _measured(config: ExperimentConfig, fitted: FittedBaselines, test: RawRows) -> Baselines:
    tasks = config.task_set()
    level = Predictions(
        task_names=tasks.names,
        predictions_NT=np.zeros(test.labels_NT.shape),
        labels_NT=test.labels_NT,
        weights_NT=test.weights_NT,
        spaces=tasks.spaces,
        kinds=tasks.kinds,
        groups_N=test.groups_N,
    )
    return Baselines(
        values={
            kind: baseline_values(
                replace(level, predictions_NT=values_NT), config=config.evaluation, own=tasks.measure_names
            )
            for kind, values_NT in fitted.predictions_NT.items()
        },
        settings=fitted.settings,
        missing=fitted.missing,
        chance=chance_values(level, config=config.evaluation),
        notes=tuple(fitted.notes),
    )


def set_beside(predictions: Predictions, folder: RunFolder, config: EvaluationConfig) -> Baselines | None:
    """The run's baselines, compared with a model over the same rows; None where the run has none.

    Args:
        predictions: of the model, over the whole test split in file order.

    Raises:
        EvaluationError: the files of the baselines are damaged.
    """
    if not folder.baselines.exists():
        return None
    scored = folder.root / SCORED
    try:
        baselines = Baselines.from_json(json.loads(folder.baselines.read_text(encoding="utf-8")))
        with np.load(scored, allow_pickle=False) as arrays:
            rows_N = arrays["rows"]
            values: dict[BaselineKind, NDArray[np.float64]] = {kind: arrays[kind] for kind in baselines.values}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise EvaluationError(
            f"{folder.baselines} and {scored} are damaged: {error}; remove {folder.baselines} and go on with --resume, "
            "then the baselines are computed again"
        ) from error
    return replace(baselines, comparisons=compare(predictions.take(rows_N), values, config=config))


def _identity(config: ExperimentConfig, streams: Mapping[Split, ParquetStream]) -> str:
    """A hash of everything that the baselines depend on."""
    sections = dump_config(config)
    parts = {name: sections[name] for name in ("seed", "inputs", "tasks", "evaluation")}
    files = {split: stream.identity for split, stream in streams.items()}
    return hashlib.sha256(json.dumps([parts, files], sort_keys=True).encode()).hexdigest()
