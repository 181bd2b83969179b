"""RowLookup: what gives the ids of one table their rows; JointLookup: those of several tables."""

# n ids, K columns of B ids

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.features.arrow_ids import IdBlock
from recmoe.features.id_keys import UInt64s
from recmoe.features.key_index import JointKeys

Rows = NDArray[np.int64]


class JointLookup(Protocol):
    """Columns of ids → rows, each column in a table of its own."""

    def rows(self, ids: IdBlock, names: Sequence[str]) -> Rows:
        """rows_KB, 0 where an id is unknown or missing; ``names`` of the columns are for errors."""
        ...


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

    @staticmethod
    def together(lookups: Sequence[Any]) -> JointLookup:
        """What looks up a column of ids in each of these, which are of this class."""
        ...


class LookupByKeys:
    """Columns of ids → rows, where ids have keys that hold rows.

    Args:
        lookups: K of them.
    """

    def __init__(self, lookups: Sequence[RowLookup]) -> None:
        self._index = JointKeys([lookup.holders() for lookup in lookups])

    def rows(self, ids: IdBlock, names: Sequence[str]) -> Rows:
        return np.where(ids.is_missing_KB, 0, self._index.rows(ids.keys_KB))


def zero_where_null(ids: pa.Array, rows: Rows) -> Rows:
    """The rows, 0 where there is no id."""
    return np.where(ids.is_null().to_numpy(zero_copy_only=False), 0, rows) if ids.null_count else rows
