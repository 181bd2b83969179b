"""RunFacts: what a run knows of its rows before the first step; learned once, by one process, for all workers."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from recmoe.data.order import Interval
from recmoe.data.parquet import ParquetStream
from recmoe.experiment import ExperimentConfig
from recmoe.features.encoder import FeatureEncoder
from recmoe.runs.encoder import CHUNK_ROWS
from recmoe.runs.folder import RunFolder, write_atomically
from recmoe.tasks.start import LabelSums, TaskStart

MAX_LABEL_ROWS = 4_000_000
"""Training rows whose labels are counted; of a longer log, blocks from all its parts."""
MAX_UNKNOWN_ROWS = 200_000
"""Validation rows whose ids are looked up."""


@dataclass(frozen=True)
class RunFacts:
    """Where tasks begin, and how many ids will be new."""

    starts: tuple[TaskStart, ...]
    """One per logit, from the training split."""
    unknown_shares: dict[str, float]
    """By key of an id, the share of the validation split's ids that training has not seen; empty without one."""

    def write(self, folder: RunFolder) -> None:
        """Keep them in the run folder."""
        write_atomically(folder.facts, json.dumps(asdict(self), indent=2))

    @classmethod
    def read(cls, folder: RunFolder) -> "RunFacts":
        """Those of a prepared run."""
        values = json.loads(folder.facts.read_text(encoding="utf-8"))
        return cls(tuple(TaskStart(**start) for start in values["starts"]), values["unknown_shares"])


def learn_facts(
    config: ExperimentConfig, encoder: FeatureEncoder, train: ParquetStream, validation: ParquetStream | None
) -> RunFacts:
    """Count labels of the training split and unknown ids of the validation split; a pre-training needs neither.

    Raises:
        DataError: a label is wrong; names file and row.
    """
    if config.model.pretraining is not None:
        return RunFacts(starts=(), unknown_shares={})
    tasks = config.task_set()
    columns = list(dict.fromkeys(label.column for label in encoder.labels))
    sums: LabelSums | None = None
    for block in train.blocks_in_file_order(
        _spread(train.num_rows, MAX_LABEL_ROWS), batch_size=CHUNK_ROWS, columns=columns
    ):
        part = tasks.label_sums(encoder.encode_labels(block.table))
        sums = part if sums is None else sums + part
    assert sums is not None, "a training split has rows"
    shares = {} if validation is None else _unknown_shares(encoder, validation)
    return RunFacts(starts=tuple(tasks.starts(sums)), unknown_shares=shares)


def _unknown_shares(encoder: FeatureEncoder, stream: ParquetStream) -> dict[str, float]:
    """Missing values do not count, and buckets of numbers are never unknown."""
    num_ids: Counter[str] = Counter()
    num_unknown: Counter[str] = Counter()
    for block in stream.blocks_in_file_order(
        _spread(stream.num_rows, MAX_UNKNOWN_ROWS),
        batch_size=CHUNK_ROWS,
        columns=list(encoder.columns(with_labels=False)),
    ):
        batch = encoder.encode(block.table, with_labels=False)
        counts = encoder.unknown_counts(block.table, batch)
        for key, num_values in zip(encoder.layout.sparse, batch.count_ids(), strict=True):
            if key.name in counts:
                unknown, missing = counts[key.name]
                # A missing list has no ids; a missing id has a row.
                num_ids[key.name] += num_values if key.is_list else num_values - missing
                num_unknown[key.name] += unknown
    return {key: num_unknown[key] / max(num, 1) for key, num in num_ids.items()}


def _spread(num_rows: int, most: int) -> Sequence[Interval]:
    """All rows, or blocks of ``CHUNK_ROWS`` at equal distances that hold at most so many."""
    if num_rows <= most:
        return [(0, num_rows)]
    starts = np.linspace(0, num_rows - CHUNK_ROWS, most // CHUNK_ROWS).astype(np.int64).tolist()
    return [(start, start + CHUNK_ROWS) for start in starts]
