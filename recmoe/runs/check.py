"""check_data(): read every row of a config's splits as training would, and tell what is in them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from recmoe.data.loader import BatchLoader
from recmoe.data.parquet import ParquetStream
from recmoe.experiment import ExperimentConfig
from recmoe.features.encoder import FeatureEncoder
from recmoe.runs.encoder import CHUNK_ROWS, learn_encoder
from recmoe.tasks.funnel import TaskSet

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

    @property
    def unknown_shares(self) -> dict[str, float]:
        """Share of ids that look up row 0, by sparse key."""
        return {key: self.num_unknown[key] / max(count, 1) for key, count in self.num_ids.items()}


@dataclass(frozen=True)
class DataCheck:
    """All splits, and the tables that training would make."""

    splits: Mapping[Split, SplitCheck]
    table_rows: Mapping[str, int]
    warnings: tuple[str, ...]
    """What may be meant, and often is a mistake."""


def check_data(config: ExperimentConfig, *, cache_dir: Path) -> DataCheck:
    """Learn the encoder from the training split, then encode every row of every split.

    Args:
        cache_dir: where CSV files are converted, unless the config says otherwise.

    Raises:
        DataError, SchemaError: what training would stop at, with file, column and row.
    """
    tasks = config.task_set()
    streams = {
        split: config.data.build(split, seed=config.seed, cache_dir=cache_dir)
        for split in SPLITS
        if getattr(config.data, split)
    }
    encoder = learn_encoder(config, streams["train"], scratch=cache_dir / "scratch")
    checks: dict[Split, SplitCheck] = {}
    for split, stream in streams.items():
        check = SplitCheck(
            num_rows=stream.num_rows,
            num_files=len(stream.files),
            num_skipped_rows=stream.num_skipped_rows,
            num_skipped_files=stream.num_skipped_files,
            tasks={name: TaskCount() for name in tasks.names},
        )
        _count(check, stream, encoder, tasks)
        checks[split] = check
    table_rows = {table.name: table.num_rows for table in encoder.layout.tables}
    return DataCheck(checks, table_rows, tuple(_warnings(config, checks, tasks)))


def _count(check: SplitCheck, stream: ParquetStream, encoder: FeatureEncoder, tasks: TaskSet) -> None:
    keys = [key.name for key in encoder.layout.sparse]
    check.num_ids = dict.fromkeys(keys, 0)
    check.num_unknown = dict.fromkeys(keys, 0)
    for batch, _, _ in BatchLoader(stream, encoder, batch_size=CHUNK_ROWS).all_rows():
        labels_BT, weights_BT = tasks.targets(batch.labels_BL)
        for column, name in enumerate(tasks.names):
            count = check.tasks[name]
            count.num_rows += int(weights_BT[:, column].sum())
            count.total += float((labels_BT[:, column] * weights_BT[:, column]).sum(dtype=torch.float64))
        num_ids = batch.lengths_KB.sum(dim=1).tolist()
        for key, values in zip(keys, torch.split(batch.values, num_ids), strict=True):
            check.num_ids[key] += len(values)
            check.num_unknown[key] += int((values == 0).sum())


def _warnings(config: ExperimentConfig, checks: Mapping[Split, SplitCheck], tasks: TaskSet) -> Iterator[str]:
    for split, check in checks.items():
        if check.num_skipped_rows or check.num_skipped_files:
            yield f"{split}: {check.num_skipped_rows} rows and {check.num_skipped_files} files were skipped as damaged"
        for name, count in check.tasks.items():
            if count.num_rows == 0:
                yield f"{split}: no row counts for task {name}; its label is missing or its space is empty"
            elif tasks.kinds[name] == "binary" and count.mean in (0.0, 1.0):
                kind = "negative" if count.mean == 0 else "positive"
                yield f"{split}: every label of task {name} is {kind}; AUC is not defined"
        for key, share in check.unknown_shares.items():
            if share > 0.5 and check.num_ids[key]:
                yield f"{split}: {share:.0%} of the ids of {key} are missing or were not seen in training"
    if "validation" not in checks:
        yield "there is no validation split: no early stopping, the last checkpoint is the result"
    if "test" not in checks:
        yield "there is no test split: training will write no report"
    num_rows = config.training.batch_size
    if checks["train"].num_rows < num_rows:
        yield f"train: {checks['train'].num_rows} rows are fewer than one batch; lower training.batch_size ({num_rows})"
