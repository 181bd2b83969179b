"""Hashed ids: nothing to learn or to store, some ids share a row."""

# n ids, K columns of B ids

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import PositiveInt

from recmoe.config import Config
from recmoe.features.arrow_ids import IdBlock
from recmoe.features.encodings.lookup import RowLookup, Rows, zero_where_null
from recmoe.features.id_keys import UInt64s, keys, mix64


class HashConfig(Config):
    """Ids hashed into buckets: nothing to learn or to store, some ids share a row."""

    is_frequent_first: ClassVar[bool] = False
    can_refuse: ClassVar[bool] = False

    kind: Literal["hash"] = "hash"
    num_buckets: PositiveInt = 100_000
    """Rows beside row 0."""

    @property
    def num_planned_ids(self) -> int:
        return self.num_buckets

    def build(self, *, learned: RowLookup | None, seed: int) -> "HashedIds":
        assert learned is None
        return HashedIds(num_buckets=self.num_buckets, seed=seed)

    def grow(self, earlier: RowLookup | None) -> None:
        return None

    def fewer_unknown(self, path: str) -> str:
        return ""


class HashedIds:
    """Ids hashed into rows 1 … num_buckets: some share a row."""

    def __init__(self, *, num_buckets: int, seed: int) -> None:
        self._num_buckets = num_buckets
        self._salt: UInt64s = mix64(np.array([seed], np.uint64))

    @property
    def num_rows(self) -> int:
        return self._num_buckets + 1

    def rows(self, ids: pa.Array, *, name: str) -> Rows:
        return zero_where_null(ids, self.rows_of_keys(keys(ids)))

    def rows_of_keys(self, keys_n: UInt64s) -> Rows:
        return (mix64(keys_n ^ self._salt) % np.uint64(self._num_buckets)).astype(np.int64) + 1

    def holders(self) -> tuple[UInt64s, Rows]:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)

    @staticmethod
    def together(lookups: "Sequence[HashedIds]") -> "HashedColumns":
        return HashedColumns(lookups)

    def hashes_like(self, other: "HashedIds") -> bool:
        """Whether every id has the same row in both."""
        return self._num_buckets == other._num_buckets and bool(self._salt == other._salt)


class HashedColumns:
    """Columns of ids, each hashed into a table of its own.

    Args:
        lookups: K of them.
    """

    def __init__(self, lookups: Sequence[HashedIds]) -> None:
        self._salts_K1: UInt64s = np.array([lookup._salt for lookup in lookups], np.uint64).reshape(-1, 1)
        self._num_buckets_K1 = np.array([lookup._num_buckets for lookup in lookups], np.uint64).reshape(-1, 1)

    def rows(self, ids: IdBlock, names: Sequence[str]) -> Rows:
        rows_KB = (mix64(ids.keys_KB ^ self._salts_K1) % self._num_buckets_K1).astype(np.int64) + 1
        return np.where(ids.is_missing_KB, 0, rows_KB)
