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


class RowLookup(Protocol):
    """Ids → rows of one table."""

    @property
    def num_rows(self) -> int:
        """Rows of the table, row 0 included."""
        ...

    def rows(self, ids: pa.Array, *, name: str) -> NDArray[np.int64]:
        """The row of each canonical id, 0 if unknown or null; ``name`` is for errors."""
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

    def rows(self, ids: pa.Array, *, name: str) -> NDArray[np.int64]:  # noqa: ARG002
        rows = self._index.rows(keys(ids))
        return _zero_where_null(ids, rows)

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

    def rows(self, ids: pa.Array, *, name: str) -> NDArray[np.int64]:  # noqa: ARG002
        hashes = mix64(keys(ids) ^ self._salt)
        return _zero_where_null(ids, (hashes % np.uint64(self._num_buckets)).astype(np.int64) + 1)


class IndexedIds:
    """Ids that are row numbers already: id i has row i + 1."""

    def __init__(self, *, num_ids: int, out_of_range: str) -> None:
        self._num_ids = num_ids
        self._is_strict = out_of_range == "error"

    @property
    def num_rows(self) -> int:
        return self._num_ids + 1

    def rows(self, ids: pa.Array, *, name: str) -> NDArray[np.int64]:
        if pa.types.is_int64(ids.type) and not ids.null_count:
            numbers: NDArray[np.int64] = ids.to_numpy()
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


def _zero_where_null(ids: pa.Array, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(ids.is_null().to_numpy(zero_copy_only=False), 0, rows) if ids.null_count else rows


def build_lookup(encoding: EncodingConfig, *, vocabulary: Vocabulary | None, seed: int) -> RowLookup:
    """What looks up the ids of one table."""
    if isinstance(encoding, HashConfig):
        return HashedIds(num_buckets=encoding.num_buckets, seed=seed)
    if isinstance(encoding, IndexConfig):
        return IndexedIds(num_ids=encoding.num_ids, out_of_range=encoding.out_of_range)
    assert vocabulary is not None
    return vocabulary


def most_frequent(counts: Iterable[pa.Table], config: VocabularyConfig) -> pa.Table:
    """The ids that get a row: most frequent first, equally frequent ones in order of their text.

    Never holds more than two vocabularies; of parts that were cut before, the result is the same.

    Args:
        counts: tables with the columns ``id`` and ``count``, each id in one of them.
    """
    kept: list[pa.Table] = [pa.table({"id": pa.array([], pa.large_string()), "count": pa.array([], pa.int64())})]
    num_kept = 0
    for table in counts:
        frequent = table.select(["id", "count"]).filter(pc.greater_equal(table["count"], config.min_count))
        kept.append(frequent)
        num_kept += frequent.num_rows
        if num_kept > 2 * config.max_size:
            kept = [_first(kept, config.max_size)]
            num_kept = kept[0].num_rows
    return _first(kept, config.max_size)


def _first(parts: Sequence[pa.Table], size: int) -> pa.Table:
    order = [("count", "descending"), ("id", "ascending")]
    return pa.concat_tables(parts).sort_by(order).slice(0, size).combine_chunks()


def vocabulary_of(table: pa.Table) -> Vocabulary:
    """The vocabulary of ids that are cut and in order."""
    return Vocabulary(pa.concat_arrays(table["id"].chunks) if table.num_rows else pa.array([], pa.large_string()))
