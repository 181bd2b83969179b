"""Vocabulary: count ids, cut the rare ones, look the others up; row 0 means unknown."""

# n ids

import hashlib
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recmoe.errors import DataError
from recmoe.features.arrow_ids import IdValues
from recmoe.features.id_keys import UInt64s, canonical, integers, keys, mix64, text_bytes
from recmoe.features.key_index import KeyIndex
from recmoe.features.schema import EncodingConfig, HashConfig, IndexConfig, VocabularyConfig

_MERGE_AT = 1 << 20


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


class VocabularyCounter:
    """Counts the ids of all features of a table, chunk by chunk; holds distinct ids only."""

    def __init__(self) -> None:
        self._pending: list[pa.Table] = []
        self._num_pending = 0
        self._num_merged = 0

    def add(self, ids: IdValues) -> None:
        """Count the ids of a chunk; missing ones do not count."""
        if ids.places is None:
            found = pc.value_counts(ids.distinct.drop_null())
            values, counts = found.field(0), found.field(1)
        else:
            # The place behind the last distinct id collects the nulls, which have place -1.
            num_distinct = len(ids.distinct)
            counted = np.bincount(np.where(ids.places < 0, num_distinct, ids.places), minlength=num_distinct + 1)
            is_counted = pc.and_(ids.distinct.is_valid(), pa.array(counted[:num_distinct] > 0))
            values, counts = ids.distinct.filter(is_counted), pa.array(counted[:num_distinct]).filter(is_counted)
        self._append(values.cast(pa.large_string()), counts)

    def add_repeated(self, id_: str | int, count: int) -> None:
        """Count one id several times."""
        if count:
            values = canonical(pa.array([id_]))
            self._append(values.cast(pa.large_string()), pa.array([count]))

    def _append(self, ids: pa.Array, counts: pa.Array) -> None:
        self._pending.append(pa.table({"id": ids, "count": counts.cast(pa.int64())}))
        self._num_pending += len(ids)
        # Merging only when as much is new as is merged keeps the whole pass linear.
        if self._num_pending > max(_MERGE_AT, self._num_merged):
            self._merge()

    def _merge(self) -> pa.Table:
        table = pa.concat_tables(self._pending).group_by("id").aggregate([("count", "sum")])
        table = table.select(["id", "count_sum"]).rename_columns(["id", "count"])
        self._pending, self._num_pending, self._num_merged = [table], 0, table.num_rows
        return table

    def finish(self, config: VocabularyConfig) -> Vocabulary:
        """The ids that are frequent enough, most frequent first, equally frequent ones in order of their text."""
        if not self._pending:
            return Vocabulary(pa.array([], pa.large_string()))
        table = self._merge()
        table = table.filter(pc.greater_equal(table["count"], config.min_count))
        table = table.sort_by([("count", "descending"), ("id", "ascending")]).slice(0, config.max_size)
        return Vocabulary(pa.concat_arrays(table["id"].chunks) if table.num_rows else pa.array([], pa.large_string()))
