"""common_type: one Arrow type for a column that several files store differently."""

import pyarrow as pa


def common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both exactly, or None.

    A column of nothing but nulls takes the other's type, integers and floats the wider one's, strings
    (plain, large or dictionaries) a string type; lists follow their values.
    """
    if first.equals(second) or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    if pa.types.is_integer(first) and pa.types.is_integer(second):
        return _common_integer(first, second)
    if pa.types.is_floating(first) and pa.types.is_floating(second):
        return first if first.bit_width >= second.bit_width else second
    if _is_list(first) and _is_list(second):
        value = common_type(first.value_type, second.value_type)
        if value is None:
            return None
        is_large = pa.types.is_large_list(first) or pa.types.is_large_list(second)
        return pa.large_list(value) if is_large else pa.list_(value)
    if pa.types.is_dictionary(first) and pa.types.is_dictionary(second):
        value = common_type(first.value_type, second.value_type)
        return None if value is None else pa.dictionary(pa.int32(), value)
    if pa.types.is_dictionary(first):
        return common_type(first.value_type, second)
    if pa.types.is_dictionary(second):
        return common_type(first, second.value_type)
    if _is_string(first) and _is_string(second):
        return pa.large_string()
    return None


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


def _common_integer(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    if pa.types.is_signed_integer(first) == pa.types.is_signed_integer(second):
        return first if first.bit_width >= second.bit_width else second
    signed, unsigned = (first, second) if pa.types.is_signed_integer(first) else (second, first)
    if signed.bit_width > unsigned.bit_width:
        return signed
    return {8: pa.int16(), 16: pa.int32(), 32: pa.int64()}.get(unsigned.bit_width)


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def _is_string(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))
