"""common_type: one Arrow type for a column that several files store differently."""

import pyarrow as pa

_UNITS = ("s", "ms", "us", "ns")


def common_type(first: pa.DataType, second: pa.DataType, *, has_large_integers: bool = False) -> pa.DataType | None:
    """The type that holds the values of both, or None; a value that it cannot hold exactly is an error when it is read.

    A column of nothing but nulls takes the other's type, numbers of one kind the wider one's, times the finer unit,
    strings (plain, large or dictionaries) a string type; lists follow their values. Booleans beside numbers are 0 and
    1. Integers beside floats are floats.

    Args:
        has_large_integers: whether there are integers beyond 2^53, which no float holds: floats beside them must be
            whole, and the column is of integers.
    """
    if first.equals(second) or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    if _is_list(first) and _is_list(second):
        value = common_type(first.value_type, second.value_type, has_large_integers=has_large_integers)
        if value is None:
            return None
        is_large = pa.types.is_large_list(first) or pa.types.is_large_list(second)
        return pa.large_list(value) if is_large else pa.list_(value)
    if pa.types.is_dictionary(first) and pa.types.is_dictionary(second):
        value = common_type(first.value_type, second.value_type, has_large_integers=has_large_integers)
        return None if value is None else pa.dictionary(pa.int32(), value)
    if pa.types.is_dictionary(first):
        return common_type(first.value_type, second, has_large_integers=has_large_integers)
    if pa.types.is_dictionary(second):
        return common_type(first, second.value_type, has_large_integers=has_large_integers)
    if is_text(first) and is_text(second):
        return pa.large_string()
    if _is_number(first) and _is_number(second):
        return _common_number(first, second, has_large_integers)
    return _common_time(first, second)


def readable_type(type_: pa.DataType) -> pa.DataType:
    """The type a column is read in: dictionary indices that hold the values of all files, no views."""
    if pa.types.is_dictionary(type_) and type_.index_type.bit_width < 32:
        # pandas writes int8 indices for few categories; a second file's categories may not fit any more.
        return pa.dictionary(pa.int32(), type_.value_type, type_.ordered)
    # Arrow cannot pick rows of view types yet.
    if pa.types.is_string_view(type_):
        return pa.large_string()
    if pa.types.is_binary_view(type_):
        return pa.large_binary()
    return type_


def is_text(type_: pa.DataType) -> bool:
    """Strings of any form, no dictionaries of them."""
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _common_number(first: pa.DataType, second: pa.DataType, has_large_integers: bool) -> pa.DataType | None:
    if pa.types.is_boolean(first) or pa.types.is_boolean(second):
        return second if pa.types.is_boolean(first) else first
    if pa.types.is_floating(first) and pa.types.is_floating(second):
        return first if first.bit_width >= second.bit_width else second
    if pa.types.is_floating(first) or pa.types.is_floating(second):
        return pa.int64() if has_large_integers else pa.float64()
    if pa.types.is_signed_integer(first) == pa.types.is_signed_integer(second):
        return first if first.bit_width >= second.bit_width else second
    signed, unsigned = (first, second) if pa.types.is_signed_integer(first) else (second, first)
    if signed.bit_width > unsigned.bit_width:
        return signed
    return {8: pa.int16(), 16: pa.int32()}.get(unsigned.bit_width, pa.int64())


def _common_time(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    types = pa.types
    if types.is_date(first) and types.is_date(second):
        return pa.date32()
    for is_kind in (types.is_timestamp, types.is_time, types.is_duration):
        if not (is_kind(first) and is_kind(second)):
            continue
        unit = max(first.unit, second.unit, key=_UNITS.index)
        if types.is_time(first):
            return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
        if types.is_duration(first):
            return pa.duration(unit)
        if (first.tz is None) != (second.tz is None):
            return None
        return pa.timestamp(unit, first.tz if first.tz == second.tz else "UTC")
    return None


def _is_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_boolean(type_) or pa.types.is_integer(type_) or pa.types.is_floating(type_))


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))
