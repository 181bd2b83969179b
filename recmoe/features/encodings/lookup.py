"""RowLookup: what gives the ids of one table their rows."""

# n ids

from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.features.id_keys import UInt64s

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


def zero_where_null(ids: pa.Array, rows: Rows) -> Rows:
    """The rows, 0 where there is no id."""
    return np.where(ids.is_null().to_numpy(zero_copy_only=False), 0, rows) if ids.null_count else rows
