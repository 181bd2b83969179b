"""Measured: the chief metrics of a test split with their values in resamples, the same rows for every model."""

# N rows, R resamples, T tasks

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recmoe.data.loader import BatchLoader
from recmoe.data.parquet import ParquetStream
from recmoe.data.splits import SPLITS, Split
from recmoe.evaluation.bootstrap import resampled
from recmoe.evaluation.evaluate import EvaluationConfig
from recmoe.evaluation.main_metrics import main_metrics
from recmoe.evaluation.metrics.metric import Metric
from recmoe.evaluation.predictions import Predictions
from recmoe.evaluation.report import metric_name
from recmoe.experiment import ExperimentConfig
from recmoe.features.encoder import FeatureEncoder
from recmoe.runs.baselines import learn_baselines
from recmoe.runs.encoder import learn_encoder

DIGITS = 7
"""Kept of a resample's value."""


@dataclass(frozen=True)
class Measured:
    """A metric of one model."""

    value: float | None
    """None where it is not defined."""
    values_R: tuple[float, ...]
    """In every resample, NaN where it is not defined there. Resamples of all models draw the same rows."""


def chief_metrics(config: ExperimentConfig) -> tuple[str, ...]:
    """The metric by which the log's own config stops, then the main one of every task."""
    names = config.evaluation.metric_names(config.tasks, has_groups=config.inputs.group is not None)
    stopping = config.training.early_stopping
    first = [stopping.metric] if stopping is not None and stopping.metric in names else []
    return tuple(dict.fromkeys([*first, *main_metrics(names)]))


def measure(
    predictions: Predictions, names: Collection[str], *, config: EvaluationConfig, num_resamples: int
) -> dict[str, Measured]:
    """Some metrics of a model by name; those of tasks about which it says nothing are left out."""
    found: dict[str, Measured] = {}
    for place, task in enumerate(predictions.task_names):
        if np.isnan(predictions.predictions_NT[:, place]).all():
            continue
        rows_N = predictions.in_space(task)
        scores, labels = predictions.of_task(task)
        groups = None if predictions.groups_N is None else predictions.groups_N[rows_N]
        states: dict[str, Metric] = {}
        for metric in config.metrics_for(predictions.kinds[task], has_groups=groups is not None):
            name = metric_name(task, metric.name, predictions.spaces[task])
            if name in names:
                states[name] = metric.build()
                states[name].update(scores, labels, groups)
        values = resampled(states, num_rows=len(labels), groups_N=groups, num_resamples=num_resamples, seed=config.seed)
        for name, state in states.items():
            value = state.compute()
            found[name] = Measured(
                None if value.reason else float(value.values_R[0]),
                tuple(np.round(values[name], DIGITS).tolist()),
            )
    return {name: found[name] for name in names if name in found}


def simple_predictions(config: ExperimentConfig, scratch: Path) -> dict[str, Predictions]:
    """What the simple models of ``evaluation.baselines`` say about the test split, by name."""
    streams: Mapping[Split, ParquetStream] = {
        split: config.data.build(split, seed=config.seed, cache_dir=scratch) for split in SPLITS
    }
    encoder = learn_encoder(config, streams["train"], scratch=scratch / "ids")
    truth = _truth(config, encoder, streams["test"])
    baselines, values, rows_N = learn_baselines(config, streams, encoder)
    assert len(rows_N) == truth.num_rows, "simple models score every row of a test split of this size"
    for kind, reason in baselines.missing.items():
        print(f"{config.name}: {kind} is left out: {reason}")
    return {kind: replace(truth, predictions_NT=values_NT) for kind, values_NT in values.items()}


def _truth(config: ExperimentConfig, encoder: FeatureEncoder, stream: ParquetStream) -> Predictions:
    """Labels and groups of the rows as a model's predictions have them, and no prediction."""
    tasks = config.task_set()
    loader = BatchLoader(stream, encoder, batch_size=config.training.evaluation_batch_size)
    batches = [batch for batch, _, _ in loader.all_rows()]
    targets = [tasks.targets(batch.labels_BL) for batch in batches]
    labels_NT = np.concatenate([labels.numpy() for labels, _ in targets])
    groups = [batch.groups_B.numpy() for batch in batches if batch.groups_B is not None]
    return Predictions(
        task_names=tasks.names,
        predictions_NT=np.full(labels_NT.shape, np.nan),
        labels_NT=labels_NT,
        weights_NT=np.concatenate([weights.numpy() for _, weights in targets]),
        spaces=tasks.spaces,
        kinds=tasks.kinds,
        groups_N=np.concatenate(groups) if groups else None,
    )
