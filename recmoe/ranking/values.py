"""to_arrow: JSON values → an Arrow column of the type that training saw."""

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

from recmoe.errors import RequestError
from recmoe.features.columns import is_list_type
from recmoe.ranking.score import RankingConfig
from recmoe.ranking.texts import shown

Path = Callable[[int], str]
"""Where a value stands in the request, by its place in the column."""

_NONE = type(None)
_UNFIT = (pa.ArrowException, ValueError, OverflowError, ArithmeticError)
"""What a conversion raises where a value does not fit."""

WHOLE = re.compile(r"0|-?[1-9][0-9]{0,19}")
"""A whole number as an id is written: "007" and "7.0" are texts."""


@dataclass(frozen=True)
class RequestColumn:
    """A column that a request may give."""

    type: pa.DataType
    is_id: bool
    """Whether it names something. Its whole numbers may come as strings: JavaScript cannot write 2^53 and more."""
    separator: str | None = None
    """Between the ids of a list that is one string."""


def to_arrow(values: Sequence[Any], type_: pa.DataType, path: Path, *, is_id: bool = False) -> pa.Array:
    """A column of one type from JSON values; null stays null. RequestError at the first value that does not fit.

    Args:
        is_id: whether strings that are whole numbers stand for numbers.
    """
    type_ = plain_type(type_)
    if pa.types.is_null(type_):
        return pa.nulls(len(values))
    if is_list_type(type_):
        return _list_to_arrow(values, type_, path, is_id=is_id)
    expected, allowed = expectation(type_)
    if is_id and (pa.types.is_integer(type_) or pa.types.is_floating(type_)):
        allowed = {*allowed, str}
    found = set(map(type, values))
    if not found <= allowed:
        index = next(i for i, value in enumerate(values) if type(value) not in allowed)
        raise RequestError(path(index), f"expected {expected}, found {shown(values[index])}")
    try:
        return _convert(values, type_, found)
    except _UNFIT as error:
        index = _first_unfit(values, type_)
        raise RequestError(path(index), f"expected {expected}, found {shown(values[index])}") from error


def _first_unfit(values: Sequence[Any], type_: pa.DataType) -> int:
    """Where the first value is that does not fit: Arrow says that there is one, but not which. Found by halving."""
    first, end = 0, len(values)
    while end - first > 1:
        middle = (first + end) // 2
        part = values[first:middle]
        try:
            _convert(part, type_, set(map(type, part)))
            first = middle
        except _UNFIT:
            end = middle
    return first


def plain_type(type_: pa.DataType) -> pa.DataType:
    """The type that a request gives values of a type in: those of a dictionary are plain, lists are lists."""
    if is_list_type(type_):
        return pa.list_(plain_type(type_.value_type))
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _convert(values: Sequence[Any], type_: pa.DataType, found: Collection[type]) -> pa.Array:
    """The column; an exception of Arrow or of arithmetic where a value does not fit.

    Args:
        found: the types of the values.
    """
    if (pa.types.is_floating(type_) or pa.types.is_integer(type_)) and str in found:
        values = [_whole(value) if isinstance(value, str) else value for value in values]
    if pa.types.is_floating(type_):
        numbers = _floats(values, found)
        if not np.isfinite(numbers.fill_null(0.0).to_numpy()).all():
            raise ValueError("not finite")
        return numbers if type_ == numbers.type else numbers.cast(type_, safe=False)
    if pa.types.is_integer(type_) and float in found:
        # Arrow would cut fractions off.
        if not all(value is None or value == int(value) for value in values):
            raise ValueError("not whole")
        return pa.array([None if value is None else int(value) for value in values], type_)
    if pa.types.is_decimal(type_):
        return pa.array([None if value is None else str(value) for value in values], pa.string()).cast(type_)
    if pa.types.is_temporal(type_) and not pa.types.is_duration(type_):
        return pa.array(values, pa.string()).cast(type_)
    return pa.array(values, type_)


def _floats(values: Sequence[Any], found: Collection[type]) -> pa.Array:
    if {float, _NONE}.issuperset(found):
        return pa.array(values, pa.float64())
    # Arrow takes no integer beyond 2^53 for a float.
    return pa.array([None if value is None else float(value) for value in values], pa.float64())


def _whole(text: str) -> int:
    if WHOLE.fullmatch(text) is None:
        raise ValueError("not a whole number")
    return int(text)


def expectation(type_: pa.DataType) -> tuple[str, set[type]]:
    """What a value of a type must be, in words and as the Python types of JSON."""
    if pa.types.is_boolean(type_):
        return "true or false", {bool, _NONE}
    if pa.types.is_integer(type_):
        return f"an integer ({type_})", {int, float, _NONE}
    if pa.types.is_floating(type_):
        return "a finite number", {int, float, _NONE}
    if pa.types.is_decimal(type_):
        return f"a number ({type_})", {int, float, str, _NONE}
    if pa.types.is_temporal(type_) and not pa.types.is_duration(type_):
        return f"a time in ISO 8601 ({type_})", {str, _NONE}
    return "a string", {str, _NONE}


def _list_to_arrow(values: Sequence[Any], type_: pa.DataType, path: Path, *, is_id: bool) -> pa.Array:
    for index, value in enumerate(values):
        if value is not None and type(value) is not list:
            raise RequestError(path(index), f"expected a list, found {shown(value)}")
    flat = [element for value in values if value for element in value]
    ends = list(accumulate((len(value) if value else 0 for value in values), initial=0))

    def element_path(position: int) -> str:
        index = bisect_right(ends, position) - 1
        return f"{path(index)}[{position - ends[index]}]"

    elements = to_arrow(flat, type_.value_type, element_path, is_id=is_id)
    # A null offset marks the list that starts there as null.
    marked = [None if value is None else end for value, end in zip(values, ends, strict=False)]
    return pa.ListArray.from_arrays(pa.array([*marked, ends[-1]], pa.int32()), elements)


def check_sizes(values: Sequence[Any], column: RequestColumn, path: Path, limits: RankingConfig) -> None:
    """RequestError at the first id or list that is too long: reading one takes time for its length."""
    if not (column.is_id or column.separator is not None or is_list_type(column.type)):
        return
    shortest = min(limits.max_id_length, limits.max_list_length)
    found = set(map(type, values))
    if list not in found:
        texts = filter(None, values) if found <= {str, _NONE} else (v for v in values if isinstance(v, str))
        if str not in found or max(map(len, texts), default=0) <= shortest:
            return
    for index, value in enumerate(values):
        if isinstance(value, str) and len(value) > shortest:
            if column.separator is None:
                _check_id(value, path(index), limits)
            else:
                _check_list(value.split(column.separator), path(index), limits)
        elif isinstance(value, list):
            _check_list(value, path(index), limits)


def check_list_length(length: int, path: str, limits: RankingConfig) -> None:
    """RequestError where a list is too long."""
    if length > limits.max_list_length:
        raise RequestError(
            path,
            f"is a list of {length}, at most {limits.max_list_length} are read; "
            "send the most recent ones, or raise ranking.max_list_length in the config",
        )


def _check_list(values: Sequence[Any], path: str, limits: RankingConfig) -> None:
    check_list_length(len(values), path, limits)
    for index, value in enumerate(values):
        if isinstance(value, str):
            _check_id(value, f"{path}[{index}]", limits)


def _check_id(text: str, path: str, limits: RankingConfig) -> None:
    if len(text) > limits.max_id_length:
        raise RequestError(
            path,
            f"has {len(text)} characters, an id has at most {limits.max_id_length}; "
            "shorten it, or raise ranking.max_id_length in the config",
        )
