"""values: what the columns of a log hold, as numbers, codes and hashes, whatever their Arrow type."""

# N rows

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recmoe.features.transforms import as_floats

NO_AND_YES = (("0", "1"), ("n", "y"), ("no", "yes"), ("f", "t"), ("false", "true"), ("-1", "1"), ("否", "是"))
NOTHING = pa.array(["", *(no for no, _ in NO_AND_YES)], pa.large_string())


def is_number(type_: pa.DataType) -> bool:
    """Integers, floats, decimals and booleans."""
    return bool(
        pa.types.is_integer(type_)
        or pa.types.is_floating(type_)
        or pa.types.is_decimal(type_)
        or pa.types.is_boolean(type_)
    )


def is_text(type_: pa.DataType) -> bool:
    """Strings, plain or as a dictionary."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def is_list(type_: pa.DataType) -> bool:
    """Lists of any length."""
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def is_time(type_: pa.DataType) -> bool:
    """Dates and timestamps."""
    return bool(pa.types.is_timestamp(type_) or pa.types.is_date(type_))


def codes(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A number per distinct value; -1 for null."""
    whole = column.combine_chunks()
    if is_list(whole.type):
        texts = pc.binary_join(whole.cast(pa.list_(pa.string())), "\x1f")
        return codes(pa.chunked_array([texts]))
    if not pa.types.is_dictionary(whole.type):
        whole = pc.dictionary_encode(whole)
    return np.asarray(pc.fill_null(whole.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False))


def numbers(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """A column of numbers as floats, NaN where null; integers beyond 2^53 lose their last digits."""
    return as_floats(column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column]))


def positives(column: pa.Array) -> npt.NDArray[np.bool_]:
    """Which rows hold something: neither null, NaN, 0, a text that says no, nor an empty list."""
    if is_number(column.type):
        x_N = numbers(column)
        # Where -1 stands for no, it is as little as 0 elsewhere.
        low = 0.0 if np.isin(x_N[~np.isnan(x_N)], (-1.0, 0.0, 1.0)).all() else -np.inf
        return np.asarray(~np.isnan(x_N) & (x_N != 0) & (x_N > low))
    is_filled: npt.NDArray[np.bool_] = np.array(pc.is_valid(column).to_numpy(zero_copy_only=False), dtype=bool)
    if is_text(column.type):
        says_no = pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(column.cast(pa.large_string()))), NOTHING)
        is_filled &= ~says_no.to_numpy(zero_copy_only=False)
    elif is_list(column.type):
        is_filled &= pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False) > 0
    return is_filled


def hashes(values: pa.Array) -> npt.NDArray[np.uint64]:
    """64-bit hashes, equal in every process; null has one too."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if is_time(values.type):
        values = values.cast(pa.date64()).cast(pa.int64()) if pa.types.is_date(values.type) else values.cast(pa.int64())
    plain = is_number(values.type) and not pa.types.is_decimal(values.type) and not values.null_count
    array = values.to_numpy(zero_copy_only=False) if plain else pc.fill_null(values.cast(pa.string()), "\x00")
    return np.asarray(pd.util.hash_array(np.asarray(array, dtype=None if plain else object), categorize=not plain))


def is_whole(column: pa.Array | pa.ChunkedArray) -> bool:
    """Whether all numbers of a column are whole, as far as they are finite; False for what holds no numbers."""
    if not is_number(column.type) or pa.types.is_boolean(column.type):
        return False
    if pa.types.is_integer(column.type):
        return True
    x_N = numbers(column)
    x_N = x_N[np.isfinite(x_N)]
    return bool((x_N == np.round(x_N)).all())
