"""ColumnValues: any feature's column as small numbers, one per different value, and where it holds something."""

# N rows, n values (several per row in a list), K different values

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recmoe.features.arrow_ids import IdValues, id_column, id_list_column
from recmoe.features.id_keys import keys
from recmoe.features.kinds import FeatureConfig
from recmoe.features.raw_column import RawColumn
from recmoe.features.transforms import Floats, as_floats

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NUM_BINS = 64
"""Bins of a number with more than ``MAX_EXACT`` values; each edge is a bin of its own, so that 0 may be one."""
MAX_EXACT = 256
MARK_SHARE = 0.2
"""Share of rows with the lowest number from which it may be a mark for "nothing"."""
EMPTY_WORDS = ("", "-", "0", "f", "false", "n", "n/a", "na", "nan", "no", "none", "null", "off", "\\n")
"""Texts, in lower case, that say that nothing happened or nothing is known."""


@dataclass(frozen=True)
class ColumnValues:
    """The values of one column over the rows of a sample.

    Example: the lists ``[["a", "b"], [], ["a"]]``::

        code_n [0, 1, 2, 0]    row_n [0, 0, 1, 2]    is_filled_N [True, False, True]
    """

    code_n: Ints
    """A number per value, from 0 to K - 1; missing values and empty lists have one of their own."""
    row_n: Ints | None
    """The row of each value; None where each row holds one."""
    num_codes: int
    """K."""
    num_distinct: int
    """Different values before numbers were put into bins; missing ones are none."""
    is_filled_N: Bools
    """Rows that are neither missing, 0, false, an empty list nor a word for nothing.

    Where no row is any of these, the lowest number stands for nothing if it fills many rows, as -1 often does, or is
    one of two; and of two texts the more frequent one.
    """
    is_number: bool
    """Whether the values are numbers, not ids."""


def column_values(table: pa.Table, name: str, feature: FeatureConfig) -> ColumnValues:
    """The values of a feature's column.

    Raises:
        SchemaError: the column is missing or of a type that the feature cannot read.
    """
    column = feature.raw_columns(name)[0]
    values = column.read(table, feature=name)
    if column.holds == "number":
        return _of_numbers(as_floats(values))
    if column.holds == "ids":
        return _of_lists(column, values)
    return _of_ids(values)


def _of_numbers(x_N: Floats) -> ColumnValues:
    code_N, distinct = pd.factorize(x_N)
    is_missing_N = code_N < 0
    num_codes = len(distinct)
    if len(distinct) > MAX_EXACT:
        edges = np.unique(np.nanquantile(x_N, np.linspace(0, 1, NUM_BINS + 1), method="inverted_cdf"))
        # Even codes lie between edges, odd ones on them: a value that fills many rows is an edge.
        code_N = np.searchsorted(edges, x_N, side="left") + np.searchsorted(edges, x_N, side="right")
        num_codes = 2 * len(edges) + 1
    is_filled_N = ~is_missing_N & (x_N != 0)
    if is_filled_N.all():
        is_lowest_N = x_N == x_N.min()
        if len(distinct) == 2 or is_lowest_N.mean() > MARK_SHARE:
            is_filled_N = ~is_lowest_N
    return ColumnValues(
        code_n=np.where(is_missing_N, num_codes, code_N).astype(np.int64),
        row_n=None,
        num_codes=num_codes + 1,
        num_distinct=len(distinct),
        is_filled_N=is_filled_N,
        is_number=True,
    )


def _of_ids(column: pa.ChunkedArray) -> ColumnValues:
    chunks = list(id_column(column))
    is_missing_N = np.concatenate([ids.is_missing for ids in chunks])
    key_N = np.concatenate([ids.spread(keys(ids.distinct).view(np.int64), missing=0) for ids in chunks])
    code_N, distinct = pd.factorize(key_N)
    num_distinct = len(np.unique(code_N[~is_missing_N]))
    is_filled_N = np.concatenate([ids.spread(_says_something(ids), missing=0) for ids in chunks]).astype(np.bool_)
    if num_distinct == 2 and is_filled_N.all():
        is_filled_N = code_N == np.bincount(code_N).argmin()
    return ColumnValues(
        code_n=np.where(is_missing_N, len(distinct), code_N).astype(np.int64),
        row_n=None,
        num_codes=len(distinct) + 1,
        num_distinct=num_distinct,
        is_filled_N=is_filled_N,
        is_number=False,
    )


def _of_lists(column: RawColumn, values: pa.ChunkedArray) -> ColumnValues:
    parts = list(id_list_column(values, separator=column.separator, max_length=column.max_length))
    length_N = np.concatenate([lengths for _, lengths in parts])
    key_n = np.concatenate([ids.spread(keys(ids.distinct).view(np.int64), missing=0) for ids, _ in parts])
    code_n, distinct = pd.factorize(key_n)
    is_empty_N = length_N == 0
    empty_rows = np.flatnonzero(is_empty_N)
    return ColumnValues(
        code_n=np.concatenate([code_n, np.full(len(empty_rows), len(distinct))]).astype(np.int64),
        row_n=np.concatenate([np.repeat(np.arange(len(length_N)), length_N), empty_rows]).astype(np.int64),
        num_codes=len(distinct) + 1,
        num_distinct=len(distinct),
        is_filled_N=~is_empty_N,
        is_number=False,
    )


def _says_something(ids: IdValues) -> Ints:
    """1 per distinct id that is not a word for nothing."""
    if pa.types.is_int64(ids.distinct.type):
        is_empty = pc.equal(ids.distinct, 0)
    else:
        words = pc.utf8_lower(pc.utf8_trim_whitespace(ids.distinct))
        is_empty = pc.is_in(words, value_set=pa.array(EMPTY_WORDS, words.type))
    empty: Bools = pc.fill_null(is_empty, True).to_numpy(zero_copy_only=False)
    return (~empty).astype(np.int64)
