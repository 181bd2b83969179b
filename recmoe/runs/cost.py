"""cost_of(): what a model costs and predicts next to the one that it was made from; measured on this machine."""

# N rows of the test split, T tasks, Z logits

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from recmoe.data.loader import BatchLoader
from recmoe.data.parquet import ParquetStream
from recmoe.embeddings.logical import dense_parameters, find_tables
from recmoe.evaluation.baselines import verdict
from recmoe.evaluation.compare import paired
from recmoe.evaluation.evaluate import evaluate
from recmoe.evaluation.predict import predict_rows
from recmoe.evaluation.predictions import Predictions
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.export.lineage import Lineage
from recmoe.ranking.example import requests_of_rows
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import RankRequest
from recmoe.runs.folder import RunFolder, write_atomically
from recmoe.runs.origin import origin_of
from recmoe.runs.splits import open_split
from recmoe.runs.teacher import mean_logits
from recmoe.tasks.funnel import TaskSet

_logger = logging.getLogger(__name__)

NUM_CANDIDATES = 200
"""Of the request that is ranked."""
NUM_WARM, NUM_TIMED = 3, 21
"""Requests before and while the clock runs; the median of the latter counts."""
FLOP_ROWS = 256
"""Rows whose operations are counted."""


@dataclass(frozen=True)
class ModelCost:
    """What one row or one request costs a model."""

    dense_parameters: int
    """Of everything but the tables."""
    table_parameters: int
    table_bytes: int
    flops_per_row: float
    """Operations of matrix products in one forward pass, on rows of the log; a product and a sum count as two."""
    rank_ms: float
    """Of a request of ``num_candidates``, from its fields to the order of its items."""
    model_ms: float
    """Of that, in look-ups and network."""


@dataclass(frozen=True)
class TaskCost:
    """A task of both models on the same rows, by its main metric."""

    task: str
    space: str
    metric: str
    before: float | None
    after: float | None
    advantage: float | None
    """How much better the new model is, by paired resamples; positive is better for any metric."""
    low: float | None
    high: float | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """What two models predict of the same rows."""

    tasks: tuple[TaskCost, ...]
    """Those that both know."""
    metrics_before: Mapping[str, float | None]
    """Every number by its name, such as ``cvr.auc[click]``."""
    metrics_after: Mapping[str, float | None]
    num_rows: int


@dataclass(frozen=True)
class Cost:
    """The new model (after) next to the one that it was made from (before)."""

    lineage: Lineage
    before: ModelCost
    after: ModelCost
    num_candidates: int
    tasks: tuple[TaskCost, ...] = ()
    """Those that both know; empty without a test split."""
    metrics_before: Mapping[str, float | None] | None = None
    """Every number by its name, such as ``cvr.auc[click]``."""
    metrics_after: Mapping[str, float | None] | None = None
    num_rows: int = 0
    """Of the test split."""

    @property
    def speedup(self) -> float:
        """How many times faster the new model ranks the request."""
        return self.before.rank_ms / self.after.rank_ms

    def to_json(self) -> dict[str, Any]:
        """Plain values, for ``cost.json``."""
        return {**asdict(self), "speedup": self.speedup}


def keep_cost(config: ExperimentConfig, folder: RunFolder) -> None:
    """Measure the model of a run next to the one that it was made from, once; nothing where it was made from none."""
    origin = origin_of(folder)
    if origin is None or folder.cost.exists():
        return
    if not origin.root.exists():
        _logger.warning("%s is gone: what the new model costs next to it is not measured", origin.root)
        return
    stream = open_split(config, folder, "test") if config.data.test else None
    cost = cost_of(origin.load(), ModelBundle.load(folder.bundle), lineage=origin.lineage, stream=stream, config=config)
    write_atomically(folder.cost, json.dumps(cost.to_json(), indent=2))


def cost_of(
    before: ModelBundle,
    after: ModelBundle,
    *,
    lineage: Lineage,
    stream: ParquetStream | None,
    config: ExperimentConfig,
) -> Cost:
    """Measure two models side by side.

    Each reads the raw rows through its own encoder, and the new model's tasks say what is measured on which rows.

    Args:
        stream: test rows; None for no metrics.
        config: of the new model.

    Raises:
        DataError, SchemaError: the rows cannot be read, or lack a column that one of the models reads.
    """
    models = (before, after)
    num_candidates, times_ms = _rank_times(models)
    of_before, of_after = (
        ModelCost(*_num_parameters(bundle), _flops_per_row(bundle), *of_bundle)
        for bundle, of_bundle in zip(models, times_ms, strict=True)
    )
    cost = Cost(lineage, of_before, of_after, num_candidates)
    if stream is None:
        return cost
    loader = BatchLoader(stream, after.encoder, batch_size=config.training.evaluation_batch_size)
    found = compared(before, after, predict_rows(after.model, loader).predictions, stream, config)
    return replace(cost, **vars(found))


def compared(
    before: ModelBundle, after: ModelBundle, now: Predictions, stream: ParquetStream, config: ExperimentConfig
) -> Comparison:
    """Two models on the same rows.

    Args:
        now: what the new model says of the rows, in the order of the files.
        stream: the rows, which the earlier model reads through its own encoder.
        config: of the new model.

    Raises:
        DataError, SchemaError: the rows cannot be read, or lack a column that the earlier model reads.
    """
    logits_NZ = np.empty((stream.num_rows, len(after.tasks.logit_names)), np.float32)
    mean_logits([before], stream, after.tasks, into_NZ=logits_NZ)
    # NaN for a task that the earlier model does not know.
    then = with_logits(now, after.tasks, logits_NZ)
    settings = config.evaluation.model_copy(update={"slices": ()})
    quick = settings.model_copy(update={"num_resamples": 0})
    common = [place for place, column_N in enumerate(then.predictions_NT.T) if not np.isnan(column_N).any()]
    tasks = [
        TaskCost(
            task=one.task,
            space=one.space,
            metric=one.metric,
            before=one.of_other.value,
            after=one.model.value,
            advantage=one.advantage.value,
            low=one.advantage.low,
            high=one.advantage.high,
            verdict=verdict(one.advantage),
        )
        for one in paired(now, {"before": then.predictions_NT}, config=settings)
    ]
    values = [evaluate(predictions, config=quick).values() for predictions in (then.take_tasks(common), now)]
    return Comparison(tuple(tasks), metrics_before=values[0], metrics_after=values[1], num_rows=now.num_rows)


def with_logits(predictions: Predictions, tasks: TaskSet, logits_NZ: NDArray[np.float32]) -> Predictions:
    """The same rows with what other logits say of them."""
    logits, labels = torch.from_numpy(logits_NZ), torch.from_numpy(predictions.labels_NT)
    measures = tasks.measures(logits, labels)
    return replace(
        predictions,
        predictions_NT=tasks.predict(logits).numpy(),
        measures={task: {name: m_N.numpy() for name, m_N in of_task.items()} for task, of_task in measures.items()},
    )


def _num_parameters(bundle: ModelBundle) -> tuple[int, int, int]:
    """Those of everything but the tables, those of the tables, and the bytes of these."""
    _, tables = find_tables(bundle.model)
    dense = sum(weight.numel() for _, weight in dense_parameters(bundle.model))
    return (
        dense,
        sum(spec.num_rows * spec.width for spec in tables.layout.tables),
        sum(weight.nbytes for weight in tables.table_weights().values()),
    )


def _flops_per_row(bundle: ModelBundle) -> float:
    rows = bundle.replay.rows.slice(0, FLOP_ROWS)
    batch = bundle.encoder.encode(rows, with_labels=False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        bundle.model(batch)
    return float(counter.get_total_flops()) / float(rows.num_rows)


def _rank_times(models: tuple[ModelBundle, ModelBundle]) -> tuple[int, list[tuple[float, float]]]:
    """Candidates of a request, and by model the milliseconds of ranking it and, of these, those in the network.

    The two take turns, so that whatever else the machine does meets both alike.
    """
    rankers = [Ranker(bundle) for bundle in models]
    num_candidates = min(NUM_CANDIDATES, *(ranker.config.max_candidates for ranker in rankers))
    requests = [_request(bundle, num_candidates) for bundle in models]
    times: list[list[Mapping[str, float]]] = [[], []]
    for _ in range(NUM_WARM + NUM_TIMED):
        for ranker, request, taken in zip(rankers, requests, times, strict=True):
            taken.append(ranker.rank(request).timing_ms)
    return num_candidates, [
        (median(one["total"] for one in taken[NUM_WARM:]), median(one["model"] for one in taken[NUM_WARM:]))
        for taken in times
    ]


def _request(bundle: ModelBundle, num_candidates: int) -> RankRequest:
    """The user and context of the first row of the replay, and as many candidates as are asked for."""
    rows, item = bundle.replay.rows, bundle.encoder.schema.item
    if item is not None and item not in rows.column_names:
        # A replay holds what the model reads, and the name of an item need not be among that.
        names = pa.array(range(rows.num_rows)).cast(bundle.encoder.arrow_schema().field(item).type)
        rows = rows.append_column(item, names)
    made = list(requests_of_rows(bundle.encoder.schema, rows))
    candidates = [candidate for one in made for candidate in one["candidates"]]
    repeated = candidates * (num_candidates // len(candidates) + 1)
    return RankRequest.model_validate({**made[0], "candidates": repeated[:num_candidates]})
