"""SplitCheck: what one split holds, counted over all its rows."""

# B rows of a batch, T tasks

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from recmoe.data.loader import BatchLoader
from recmoe.data.parquet import ParquetStream
from recmoe.experiment import ExperimentConfig
from recmoe.features.arrow_ids import id_column
from recmoe.features.batch import Batch
from recmoe.features.columns import id_column_of
from recmoe.features.encoder import FeatureEncoder
from recmoe.runs.encoder import CHUNK_ROWS
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.spaces import space_label, step_labels

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass
class TaskCount:
    """Rows of one task in a split."""

    num_rows: int = 0
    """Rows in the task's space whose label is known."""
    total: float = 0.0
    """Sum of the labels: positives, or the sum of the values."""

    @property
    def mean(self) -> float:
        """Share of positives, or mean of the values; NaN without rows."""
        return self.total / self.num_rows if self.num_rows else float("nan")


@dataclass
class SplitCheck:
    """What one split holds."""

    num_rows: int
    num_files: int
    num_skipped_rows: int
    num_skipped_files: int
    tasks: dict[str, TaskCount]
    num_ids: dict[str, int] = field(default_factory=dict)
    """By sparse key."""
    num_unknown: dict[str, int] = field(default_factory=dict)
    """Of them, those that look up row 0: missing, or never seen in training."""
    tasks_of_unknown: dict[str, dict[str, TaskCount]] = field(default_factory=dict)
    """By feature with one id per row: the tasks of the rows whose id looks up row 0."""
    num_outside: dict[str, int] = field(default_factory=dict)
    """By task with a space: rows whose label is above 0 although the space is not 1."""
    num_without_group: int = 0
    """Rows that belong to no list, where the schema names a group."""

    @property
    def unknown_shares(self) -> dict[str, float]:
        """Share of ids that look up row 0, by sparse key."""
        return {key: self.num_unknown[key] / max(count, 1) for key, count in self.num_ids.items()}


def count_split(config: ExperimentConfig, stream: ParquetStream, encoder: FeatureEncoder, tasks: TaskSet) -> SplitCheck:
    """Encode every row of a split and count.

    Raises:
        DataError, SchemaError: what training would stop at, with file, column and row.
    """
    check = SplitCheck(
        num_rows=stream.num_rows,
        num_files=len(stream.files),
        num_skipped_rows=stream.num_skipped_rows,
        num_skipped_files=stream.num_skipped_files,
        tasks={name: TaskCount() for name in tasks.names},
    )
    keys = [key.name for key in encoder.layout.sparse]
    check.num_ids = dict.fromkeys(keys, 0)
    check.num_unknown = dict.fromkeys(keys, 0)
    check.tasks_of_unknown = {
        key.feature: {name: TaskCount() for name in tasks.names}
        for key in encoder.layout.sparse
        if not key.is_list and key.table in encoder.lookups
    }
    for batch, _, _ in BatchLoader(stream, encoder, batch_size=CHUNK_ROWS).all_rows():
        labels_BT, weights_BT = tasks.targets(batch.labels_BL)
        _add(check.tasks, labels_BT, weights_BT)
        num_ids = batch.count_ids()
        for key, values in zip(encoder.layout.sparse, torch.split(batch.values, num_ids), strict=True):
            check.num_ids[key.name] += len(values)
            check.num_unknown[key.name] += int((values == 0).sum())
            if key.feature in check.tasks_of_unknown:
                is_unknown_B1 = (values == 0)[:, None]
                _add(check.tasks_of_unknown[key.feature], labels_BT, weights_BT * is_unknown_B1)
        _add_outside(check, config, tasks, batch)
    if config.inputs.group is not None:
        check.num_without_group = _num_missing(stream, config.inputs.group)
    return check


def _add(counts: Mapping[str, TaskCount], labels_BT: Tensor, weights_BT: Tensor) -> None:
    for column, count in enumerate(counts.values()):
        count.num_rows += int(weights_BT[:, column].sum())
        count.total += float((labels_BT[:, column] * weights_BT[:, column]).sum(dtype=torch.float64))


def _add_outside(check: SplitCheck, config: ExperimentConfig, tasks: TaskSet, batch: Batch) -> None:
    places = {label.name: place for place, label in enumerate(tasks.label_columns)}
    for name, task in config.tasks.items():
        if task.space is not None:
            label, space = step_labels(config.tasks, name)[-1], space_label(config.tasks, name)
            assert space is not None
            is_outside_B = (batch.labels_BL[:, places[label]] > 0) & (batch.labels_BL[:, places[space]] != 1)
            check.num_outside[name] = check.num_outside.get(name, 0) + int(is_outside_B.sum())


def _num_missing(stream: ParquetStream, column: str) -> int:
    blocks = stream.blocks_in_file_order([(0, stream.num_rows)], batch_size=CHUNK_ROWS, columns=[column])
    return sum(
        int(ids.is_missing.sum())
        for block in blocks
        for ids in id_column(id_column_of(block.table, column, needed_by="the schema, as its group"))
    )
