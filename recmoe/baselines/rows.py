"""RawRows: the rows of a split as simple models read them, whatever the model's encoder keeps of their ids."""

# N rows, n ids of a list column, L label columns, T tasks

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.data.order import Interval
from recmoe.data.parquet import ParquetStream
from recmoe.features.arrow_ids import id_column, id_list_column
from recmoe.features.columns import feature_column, id_column_of
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.id_keys import keys
from recmoe.features.label_values import encode_labels
from recmoe.features.numeric import read_number
from recmoe.features.schema import IdFeature, IdListFeature, NumericFeature
from recmoe.tasks.funnel import TaskSet

Keys = NDArray[np.int64]
Floats = NDArray[np.float64]

MISSING = 0
"""Key of a null."""
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
    ids, lists, numbers = {}, {}, {}
    for name, feature in encoder.schema.features.items():
        if isinstance(feature, NumericFeature):
            numbers[name] = np.asarray(read_number(table, name, feature), dtype=np.float64)
        elif isinstance(feature, IdFeature):
            ids[name] = _keys(feature_column(table, name, feature))
        else:
            lists[name] = _list_keys(table, name, feature)
    labels, weights = tasks.targets(encode_labels(table, encoder.labels))
    group = encoder.schema.group
    groups_N = None if group is None else _keys(id_column_of(table, group, needed_by="the schema, as its group"))
    return RawRows(ids, lists, numbers, labels.numpy(), weights.numpy(), groups_N)


def _keys(column: pa.ChunkedArray) -> Keys:
    parts = [ids.spread(keys(ids.distinct).view(np.int64), missing=MISSING) for ids in id_column(column)]
    return _concatenated(parts, np.int64)


def _list_keys(table: pa.Table, name: str, feature: IdListFeature) -> tuple[Keys, NDArray[np.int64]]:
    column = feature_column(table, name, feature)
    found, lengths = [], []
    for ids, lengths_B in id_list_column(column, separator=feature.separator, max_length=feature.max_length):
        found.append(ids.spread(keys(ids.distinct).view(np.int64), missing=MISSING))
        lengths.append(lengths_B)
    return _concatenated(found, np.int64), _concatenated(lengths, np.int64)


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


def _concatenated(parts: Sequence[NDArray[Any]], kind: type) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, kind)
