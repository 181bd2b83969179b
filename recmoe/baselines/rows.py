"""RawRows: the rows of a split as simple models read them, whatever the model's encoder keeps of their ids."""

# N rows, n ids of a list column, L label columns, T tasks

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.data.order import Interval
from recmoe.data.parquet import ParquetStream
from recmoe.features.columns import id_column_of
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.kinds.raw_keys import Keys, id_keys_of
from recmoe.features.label_values import encode_labels
from recmoe.tasks.funnel import TaskSet

Floats = NDArray[np.float64]

CHUNK_ROWS = 65_536
NUM_INTERVALS = 64


@dataclass(frozen=True)
class RawRows:
    """N rows in file order. Ids are hashes of 64 bits: no vocabulary has cut the rare ones."""

    ids: Mapping[str, Keys]
    """By id feature, a key per row."""
    lists: Mapping[str, tuple[Keys, NDArray[np.int64]]]
    """By list feature, the keys of all rows one after the other, and how many each row has."""
    numbers: Mapping[str, Floats]
    """By numeric feature; NaN where missing."""
    labels_NT: NDArray[np.float32]
    weights_NT: NDArray[np.float32]
    """1 where the row lies in the task's space and its label is known, else 0."""
    groups_N: Keys | None

    @property
    def num_rows(self) -> int:
        return len(self.labels_NT)


def spread_intervals(num_rows: int, most: int) -> list[Interval]:
    """All rows, or intervals at equal distances that hold at most so many."""
    if num_rows <= most:
        return [(0, num_rows)] if num_rows else []
    length = max(1, most // NUM_INTERVALS)
    starts = np.linspace(0, num_rows - length, most // length).astype(int)
    return [(int(start), int(start) + length) for start in starts]


def interval_rows(intervals: Sequence[Interval]) -> NDArray[np.int64]:
    """The numbers of the rows in intervals."""
    return np.concatenate([np.arange(start, stop) for start, stop in intervals] or [np.zeros(0, np.int64)])


def read_rows(stream: ParquetStream, encoder: FeatureEncoder, tasks: TaskSet, intervals: Sequence[Interval]) -> RawRows:
    """Read some rows of a split; they were checked when the run was prepared."""
    blocks = stream.blocks_in_file_order(list(intervals), batch_size=CHUNK_ROWS, columns=encoder.columns())
    return _joined([_read(block.table, encoder, tasks) for block in blocks])


def _read(table: pa.Table, encoder: FeatureEncoder, tasks: TaskSet) -> RawRows:
    parts = [feature.read_raw(table, name) for name, feature in encoder.schema.features.items()]
    labels, weights = tasks.targets(encode_labels(table, encoder.labels))
    group = encoder.schema.group
    groups_N = None
    if group is not None:
        groups_N = id_keys_of(id_column_of(table, group, needed_by="the schema, as its group"))
    return RawRows(
        ids={name: keys for part in parts for name, keys in part.ids.items()},
        lists={name: keys for part in parts for name, keys in part.lists.items()},
        numbers={name: numbers for part in parts for name, numbers in part.numbers.items()},
        labels_NT=labels.numpy(),
        weights_NT=weights.numpy(),
        groups_N=groups_N,
    )


def _joined(parts: Sequence[RawRows]) -> RawRows:
    first = parts[0]
    return RawRows(
        ids={name: np.concatenate([part.ids[name] for part in parts]) for name in first.ids},
        lists={
            name: (
                np.concatenate([part.lists[name][0] for part in parts]),
                np.concatenate([part.lists[name][1] for part in parts]),
            )
            for name in first.lists
        },
        numbers={name: np.concatenate([part.numbers[name] for part in parts]) for name in first.numbers},
        labels_NT=np.concatenate([part.labels_NT for part in parts]),
        weights_NT=np.concatenate([part.weights_NT for part in parts]),
        groups_N=None
        if first.groups_N is None
        else np.concatenate([part.groups_N for part in parts if part.groups_N is not None]),
    )
