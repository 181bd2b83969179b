"""fitted: an Arrow column of a request → the type that training saw, as ``to_arrow`` makes it of JSON values."""

# C values

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recmoe.errors import RequestError
from recmoe.features.columns import is_list_type
from recmoe.ranking.score import RankingConfig
from recmoe.ranking.texts import shown
from recmoe.ranking.values import (
    WHOLE,
    Path,
    RequestColumn,
    check_list_length,
    check_sizes,
    expectation,
    plain_type,
)

Conversion = Callable[[pa.Array], pa.Array]
"""Raises an exception of Arrow or ValueError where a value does not fit."""

_WHOLE_TEXT = rf"\A(?:{WHOLE.pattern})\z"


def fitted(values: pa.Array, column: RequestColumn, path: Path, limits: RankingConfig) -> pa.Array:
    """The column in the type of requests; null stays null.

    What JSON may write of a value, Arrow may too: a whole number for a fraction, a string for an id that is a number.

    Raises:
        RequestError: a value does not fit or is too long; the first one is named.
    """
    if pa.types.is_fixed_size_list(values.type):
        values = values.cast(pa.list_(values.type.value_type))
    _check_sizes(values, column, path, limits)
    return _fitted(values, plain_type(column.type), path, is_id=column.is_id)


def _fitted(values: pa.Array, type_: pa.DataType, path: Path, *, is_id: bool) -> pa.Array:
    if values.null_count == len(values) or pa.types.is_null(type_):
        return pa.nulls(len(values), type_)
    if is_list_type(type_):
        return _fitted_lists(values, type_, path, is_id=is_id)
    expected, _ = expectation(type_)
    convert = _conversion(values.type, type_, is_id=is_id)
    if convert is None:
        row = pc.index(values.is_valid(), True).as_py()
        raise RequestError(path(row), f"expected {expected}, found {_found(values, row)}, of type {values.type}")
    try:
        return convert(values)
    except (pa.ArrowException, ValueError):
        row = first_unfit(values, convert)
        raise RequestError(path(row), f"expected {expected}, found {_found(values, row)}") from None


def _fitted_lists(values: pa.Array, type_: pa.DataType, path: Path, *, is_id: bool) -> pa.Array:
    if not is_list_type(values.type):
        row = pc.index(values.is_valid(), True).as_py()
        raise RequestError(path(row), f"expected a list, found {_found(values, row)}, of type {values.type}")
    lengths_C = pc.list_value_length(values)
    ends = np.concatenate([[0], np.cumsum(lengths_C.fill_null(0).to_numpy())])

    def element_path(position: int) -> str:
        row = int(np.searchsorted(ends, position, side="right")) - 1
        return f"{path(row)}[{position - ends[row]}]"

    elements = _fitted(values.flatten(), type_.value_type, element_path, is_id=is_id)
    # A null offset marks the list that starts there as null.
    is_null = np.append(values.is_null().to_numpy(zero_copy_only=False), False)
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32), mask=is_null), elements)


def _conversion(given: pa.DataType, type_: pa.DataType, *, is_id: bool) -> Conversion | None:
    """How values of one type become another; None where JSON would not take them either."""
    types = pa.types
    is_text = types.is_string(given) or types.is_large_string(given)
    is_number = types.is_integer(given) or types.is_floating(given)
    if types.is_boolean(type_):
        return (lambda values: values) if types.is_boolean(given) else None
    if types.is_integer(type_) or types.is_floating(type_):
        convert = _to_floats if types.is_floating(type_) else _to_whole
        if is_text and is_id:
            return lambda values: convert(_whole_texts(values), type_)
        return (lambda values: convert(values, type_)) if is_number else None
    if types.is_decimal(type_):
        if types.is_floating(given):
            return lambda values: values.cast(pa.string()).cast(type_)
        return (lambda values: values.cast(type_)) if is_text or is_number or types.is_decimal(given) else None
    if types.is_temporal(type_) and not types.is_duration(type_):
        return (lambda values: values.cast(type_)) if is_text or _is_kindred_time(given, type_) else None
    return (lambda values: values.cast(type_)) if is_text else None


def _to_whole(values: pa.Array, type_: pa.DataType) -> pa.Array:
    return values.cast(type_)


def _to_floats(values: pa.Array, type_: pa.DataType) -> pa.Array:
    # Whole numbers beyond 2^53 are rounded, as JSON's are.
    numbers = values.cast(pa.float64(), safe=pa.types.is_string(values.type))
    if not pc.all(pc.is_finite(numbers)).as_py():
        raise ValueError("not finite")
    return numbers.cast(type_, safe=False)


def _whole_texts(values: pa.Array) -> pa.Array:
    if not pc.all(pc.match_substring_regex(values, _WHOLE_TEXT)).as_py():
        raise ValueError("not a whole number")
    return values.cast(pa.string())


def _is_kindred_time(given: pa.DataType, type_: pa.DataType) -> bool:
    """Whether both are dates, times of day or timestamps; of timestamps both or none know their zone."""
    if pa.types.is_timestamp(given) and pa.types.is_timestamp(type_):
        return (given.tz is None) == (type_.tz is None)
    return any(kind(given) and kind(type_) for kind in (pa.types.is_date, pa.types.is_time))


def first_unfit(values: pa.Array | pa.ChunkedArray, convert: Conversion) -> int:
    """Position of the first value that is not converted, of which there is one."""
    start, end = 0, len(values)
    while end - start > 1:
        middle = (start + end) // 2
        try:
            convert(values.slice(start, middle - start))
            start = middle
        except (pa.ArrowException, ValueError):
            end = middle
    return start


def _found(values: pa.Array, row: int) -> str:
    value = values[row].as_py()
    return shown(value if isinstance(value, str | int | float | list | dict) else str(value))


def _check_sizes(values: pa.Array, column: RequestColumn, path: Path, limits: RankingConfig) -> None:
    """RequestError at the first id or list that is too long."""
    if is_list_type(values.type):
        lengths_C = pc.list_value_length(values).fill_null(0).to_numpy()
        for row in np.flatnonzero(lengths_C > limits.max_list_length)[:1]:
            check_list_length(int(lengths_C[row]), path(int(row)), limits)
        parents = np.repeat(np.arange(len(values)), lengths_C)
        rows = np.unique(parents[_long_texts(values.flatten(), limits)])
    else:
        rows = _long_texts(values, limits)
    for row in rows.tolist():
        check_sizes([values[row].as_py()], column, lambda _, row=row: path(row), limits)  # type: ignore[misc]


def _long_texts(values: pa.Array, limits: RankingConfig) -> "np.typing.NDArray[np.int64]":
    """Positions of texts that may be too long."""
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return np.zeros(0, np.int64)
    num_bytes = pc.binary_length(values).fill_null(0).to_numpy()
    return np.flatnonzero(num_bytes > min(limits.max_id_length, limits.max_list_length))
