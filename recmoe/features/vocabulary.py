"""Vocabulary: cut the rare ids, look the others up; row 0 means unknown."""

# n ids

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recmoe.errors import DataError
from recmoe.features.id_keys import UInt64s, integers, keys, mix64, text_bytes
from recmoe.features.key_index import KeyIndex
from recmoe.features.schema import EncodingConfig, HashConfig, IndexConfig, VocabularyConfig

Rows = NDArray[np.int64]


class RowLookup(Protocol):
    """Ids → rows of one table."""

    @property
    def num_rows(self) -> int:
        """Rows of the table, row 0 included."""
        ...

    def rows(self, ids: pa.Array, *, name: str) -> Rows:
        """The row of each canonical id, 0 if unknown or null; ``name`` is for errors."""
        ...

    def rows_of_keys(self, keys_n: UInt64s) -> Rows:
        """The row of each key (``id_keys.keys``), 0 if unknown."""
        ...

    def holders(self) -> tuple[UInt64s, Rows]:
        """The keys that have a row of their own, and their rows; none where ids share rows."""
        ...


class Vocabulary:
    """Ids seen in training; the id at place i has row i + 1.

    Example: ``Vocabulary(pa.array(["b", "a"]))`` gives b row 1, a row 2, anything else row 0.
    """

    def __init__(self, ids: pa.Array) -> None:
        assert ids.null_count == 0
        self.ids = ids.cast(pa.large_string())

    @property
    def num_rows(self) -> int:
        return len(self.ids) + 1

    @cached_property
    def _index(self) -> KeyIndex:
        return KeyIndex(keys(self.ids))

    def rows(self, ids: pa.Array, *, name: str) -> Rows:  # noqa: ARG002
        return zero_where_null(ids, self.rows_of_keys(keys(ids)))

    def rows_of_keys(self, keys_n: UInt64s) -> Rows:
        return self._index.rows(keys_n)

    def holders(self) -> tuple[UInt64s, Rows]:
        return keys(self.ids), np.arange(1, self.num_rows)

    @property
    def digest(self) -> str:
        """Hash of the ids in their order."""
        _, lengths, data = text_bytes(self.ids)
        digest = hashlib.sha256(lengths.astype("<i8").tobytes())
        digest.update(data.tobytes())
        return digest.hexdigest()


class HashedIds:
    """Ids hashed into rows 1 … num_buckets: some share a row."""

    def __init__(self, *, num_buckets: int, seed: int) -> None:
        self._num_buckets = num_buckets
        self._salt: UInt64s = mix64(np.array([seed], np.uint64))

    @property
    def num_rows(self) -> int:
        return self._num_buckets + 1

    def rows(self, ids: pa.Array, *, name: str) -> Rows:  # noqa: ARG002
        return zero_where_null(ids, self.rows_of_keys(keys(ids)))

    def rows_of_keys(self, keys_n: UInt64s) -> Rows:
        return (mix64(keys_n ^ self._salt) % np.uint64(self._num_buckets)).astype(np.int64) + 1

    def holders(self) -> tuple[UInt64s, Rows]:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)

    def hashes_like(self, other: "HashedIds") -> bool:
        """Whether every id has the same row in both."""
        return self._num_buckets == other._num_buckets and bool(self._salt == other._salt)


class IndexedIds:
    """Ids that are row numbers already: id i has row i + 1."""

    def __init__(self, *, num_ids: int, out_of_range: str) -> None:
        self._num_ids = num_ids
        self._is_strict = out_of_range == "error"

    @property
    def num_rows(self) -> int:
        return self._num_ids + 1

    def rows(self, ids: pa.Array, *, name: str) -> Rows:
        if pa.types.is_int64(ids.type) and not ids.null_count:
            numbers: Rows = ids.to_numpy()
            # As unsigned numbers, negative ones lie beyond every table.
            if numbers.view(np.uint64).max(initial=0) < self._num_ids:
                return numbers + 1
        values, is_integer = integers(ids)
        is_inside = is_integer & (values >= 0) & (values < self._num_ids)
        if self._is_strict:
            is_wrong = ~is_inside & ids.is_valid().to_numpy(zero_copy_only=False)
            if is_wrong.any():
                wrong = ids[int(is_wrong.argmax())].as_py()
                raise DataError(
                    f"{name}: id {wrong!r} is not one of the {self._num_ids} row numbers 0 … {self._num_ids - 1}; "
                    "raise encoding.num_ids, or set encoding.out_of_range: unknown"
                )
        return np.where(is_inside, values + 1, 0)

    def rows_of_keys(self, keys_n: UInt64s) -> Rows:
        return KeyIndex(self.holders()[0]).rows(keys_n)

    def holders(self) -> tuple[UInt64s, Rows]:
        return mix64(np.arange(self._num_ids, dtype=np.uint64)), np.arange(1, self.num_rows)


def zero_where_null(ids: pa.Array, rows: Rows) -> Rows:
    """The rows, 0 where there is no id."""
    return np.where(ids.is_null().to_numpy(zero_copy_only=False), 0, rows) if ids.null_count else rows


def build_lookup(encoding: EncodingConfig, *, learnt: RowLookup | None, seed: int) -> RowLookup:
    """What looks up the ids of one table: what was learnt, where there is something to learn."""
    if isinstance(encoding, HashConfig):
        return HashedIds(num_buckets=encoding.num_buckets, seed=seed)
    if isinstance(encoding, IndexConfig):
        return IndexedIds(num_ids=encoding.num_ids, out_of_range=encoding.out_of_range)
    assert learnt is not None
    return learnt


def most_frequent(counts: Iterable[pa.Table], config: VocabularyConfig, *, known: Vocabulary | None = None) -> pa.Table:
    """The ids that get a row: most frequent first, equally frequent ones in order of their text.

    Never holds more than two vocabularies; of parts that were cut before, the result is the same.

    Args:
        counts: tables with the columns ``id`` and ``count``, each id in one of them.
        known: ids that have a row already; they are left out, and so much less room is left.
    """
    size = config.max_size - (0 if known is None else len(known.ids))
    kept: list[pa.Table] = [pa.table({"id": pa.array([], pa.large_string()), "count": pa.array([], pa.int64())})]
    num_kept = 0
    for table in counts:
        frequent = table.select(["id", "count"]).filter(pc.greater_equal(table["count"], config.min_count))
        if known is not None:
            frequent = frequent.filter(pa.array(known.rows(_whole(frequent["id"]), name="") == 0))
        kept.append(frequent)
        num_kept += frequent.num_rows
        if num_kept > 2 * size:
            kept = [_first(kept, size)]
            num_kept = kept[0].num_rows
    return _first(kept, size)


def _first(parts: Sequence[pa.Table], size: int) -> pa.Table:
    order = [("count", "descending"), ("id", "ascending")]
    return pa.concat_tables(parts).sort_by(order).slice(0, size).combine_chunks()


def vocabulary_of(table: pa.Table, *, known: Vocabulary | None = None) -> Vocabulary:
    """The vocabulary of ids that are cut and in order, behind those that are known."""
    ids = _whole(table["id"])
    return Vocabulary(ids if known is None else pa.concat_arrays([known.ids, ids]))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
