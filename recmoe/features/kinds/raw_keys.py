"""raw_keys: ids of columns as 64-bit keys, before any vocabulary has cut the rare ones."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.features.arrow_ids import id_column, id_list_column
from recmoe.features.id_keys import keys
from recmoe.features.raw_column import RawColumn

Keys = NDArray[np.int64]

MISSING = 0
"""Key of a null."""


def id_keys_of(column: pa.ChunkedArray) -> Keys:
    """A key per row of a column of ids."""
    return _concatenated([ids.spread(keys(ids.distinct).view(np.int64), missing=MISSING) for ids in id_column(column)])


def list_keys_of(column: RawColumn, values: pa.ChunkedArray) -> tuple[Keys, NDArray[np.int64]]:
    """The keys of all lists of a column one after the other, and how many each row has."""
    found, lengths = [], []
    for ids, lengths_B in id_list_column(values, separator=column.separator, max_length=column.max_length):
        found.append(ids.spread(keys(ids.distinct).view(np.int64), missing=MISSING))
        lengths.append(lengths_B)
    return _concatenated(found), _concatenated(lengths)


def _concatenated(parts: list[Keys]) -> Keys:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
