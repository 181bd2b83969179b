"""times: times of a log, one a row or in lists, as seconds; plain numbers stay in their own unit."""

# B rows, N entries of all lists

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recmoe.errors import DataError
from recmoe.features.arrow_ids import null_where_blank
from recmoe.features.id_keys import is_text_type
from recmoe.features.transforms import Floats, as_floats, is_number_type

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


def is_time_type(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type are times: instants, dates, or numbers that count them."""
    if pa.types.is_dictionary(kind):
        return is_time_type(kind.value_type)
    return bool(is_number_type(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def as_times(column: pa.ChunkedArray) -> Floats:
    """A column of times as float64, NaN where null or infinite; instants and dates in seconds since 1970."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        time_zone = column.type.tz if pa.types.is_timestamp(column.type) else None
        ticks = column.cast(pa.timestamp("us", time_zone), safe=False).cast(pa.int64())
        return as_floats(ticks) / 1e6
    times_B = as_floats(column)
    return np.where(np.isfinite(times_B), times_B, np.nan)


def time_list_column(
    column: pa.ChunkedArray, *, separator: str | None, where: str, first_row: int
) -> Iterator[tuple[Floats, NDArray[np.int64]]]:
    """The times of a column of lists, chunk by chunk, and how many each row has; a null list is an empty one.

    Args:
        separator: of the times of a list that is one string.
        where: the column in words, for errors.
        first_row: number of the first row, for errors.

    Raises:
        DataError: a part of a string is no number.
    """
    for chunk in column.chunks:
        if pa.types.is_null(chunk.type):
            yield np.zeros(0), np.zeros(len(chunk), np.int64)
            continue
        if pa.types.is_dictionary(chunk.type):
            chunk = chunk.dictionary_decode()
        if is_text_type(chunk.type):
            chunk = pc.split_pattern(null_where_blank(chunk), separator)
        lengths_B = pc.if_else(chunk.is_valid(), pc.list_value_length(chunk), 0).cast(pa.int64()).to_numpy()
        values = chunk.flatten()
        if is_text_type(values.type):
            values = _numbers(values, lengths_B, where=where, first_row=first_row)
        yield as_times(pa.chunked_array([values])), lengths_B
        first_row += len(chunk)


def _numbers(parts: pa.Array, lengths_B: NDArray[np.int64], *, where: str, first_row: int) -> pa.Array:
    """Texts as numbers, null where one is empty."""
    parts = null_where_blank(parts)
    is_wrong_N = pc.invert(pc.match_substring_regex(parts, NUMBER)).fill_null(False).to_numpy(zero_copy_only=False)
    if is_wrong_N.any():
        place = int(is_wrong_N.argmax())
        row = first_row + int(np.searchsorted(np.cumsum(lengths_B), place, side="right"))
        raise DataError(f"{where} holds {parts[place].as_py()!r} in row {row}; a time in a text must be a number")
    return parts.cast(pa.float64())
