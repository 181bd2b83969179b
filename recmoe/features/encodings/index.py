"""Indexed ids: they are row numbers already."""

# n ids, K columns of B ids

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import PositiveInt

from recmoe.config import Config
from recmoe.errors import DataError
from recmoe.features.arrow_ids import IdBlock
from recmoe.features.encodings.lookup import RowLookup, Rows
from recmoe.features.id_keys import UInt64s, integers, mix64
from recmoe.features.key_index import KeyIndex


class IndexConfig(Config):
    """Ids that are row numbers already: 0 … num_ids - 1."""

    is_frequent_first: ClassVar[bool] = False
    can_refuse: ClassVar[bool] = True

    kind: Literal["index"] = "index"
    num_ids: PositiveInt
    """Number of different ids; the largest is one less."""
    out_of_range: Literal["error", "unknown"] = "error"
    """What an id beyond the table does: stop with an error, or look up row 0."""

    @property
    def num_planned_ids(self) -> int:
        return self.num_ids

    def build(self, *, learned: RowLookup | None, seed: int) -> "IndexedIds":
        assert learned is None
        return IndexedIds(num_ids=self.num_ids, out_of_range=self.out_of_range)

    def grow(self, earlier: RowLookup | None) -> None:
        return None

    def fewer_unknown(self, path: str) -> str:
        return ""


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
                wrong = repr(ids[int(is_wrong.argmax())].as_py())
                raise DataError(f"{name}: id {wrong} {self.refusal}")
        return np.where(is_inside, values + 1, 0)

    @property
    def refusal(self) -> str:
        """What is wrong with an id beyond the table, and what to do."""
        return (
            f"is not one of the {self._num_ids} row numbers 0 … {self._num_ids - 1}; "
            "raise encoding.num_ids, or set encoding.out_of_range: unknown"
        )

    def rows_of_keys(self, keys_n: UInt64s) -> Rows:
        return KeyIndex(self.holders()[0]).rows(keys_n)

    def holders(self) -> tuple[UInt64s, Rows]:
        return mix64(np.arange(self._num_ids, dtype=np.uint64)), np.arange(1, self.num_rows)

    @staticmethod
    def together(lookups: "Sequence[IndexedIds]") -> "IndexedColumns":
        return IndexedColumns(lookups)


class IndexedColumns:
    """Columns of ids that are row numbers already, each of a table of its own.

    Args:
        lookups: K of them.
    """

    def __init__(self, lookups: Sequence[IndexedIds]) -> None:
        self._lookups = lookups
        self._num_ids_K1 = np.array([lookup._num_ids for lookup in lookups], np.int64).reshape(-1, 1)
        self._is_strict_K1 = np.array([lookup._is_strict for lookup in lookups]).reshape(-1, 1)

    def rows(self, ids: IdBlock, names: Sequence[str]) -> Rows:
        values_KB, is_integer_KB = ids.integers_KB
        is_inside_KB = is_integer_KB & (values_KB >= 0) & (values_KB < self._num_ids_K1)
        if is_inside_KB.all():
            return values_KB + 1
        is_wrong_KB = ~is_inside_KB & self._is_strict_K1 & ~ids.is_missing_KB
        if is_wrong_KB.any():
            column, row = np.argwhere(is_wrong_KB)[0].tolist()
            raise DataError(f"{names[column]}: id {ids.shown(column, row)} {self._lookups[column].refusal}")
        return np.where(is_inside_KB, values_KB + 1, 0)
