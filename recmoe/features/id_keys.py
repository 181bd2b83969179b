"""id_keys: every id as 64 bits, the same on every platform, in every process and for every Arrow type.

An id has one canonical text. Two ids are equal if their texts are, so 7, 7.0, "7" and Decimal("7.00")
are one id, while "007" and "7.0" as strings are ids of their own::

    integers, integral floats and decimals    decimal digits: 7 → "7", 7.0 → "7", -0.0 → "0"
    other floats and decimals                 shortest text: "0.5"
    booleans                                  "true", "false"
    dates, times                              ISO: "2026-01-31"; a fraction of a second only where it is not zero
    instants (timestamps with a time zone)    the same in UTC with a Z: "2026-01-31 10:00:00Z"
    strings                                   as they are, the empty string too

The key of a canonical integer within int64 is the mix of its value, so that integer columns never become
text; the key of any other text is the mix of its UTF-8 bytes, eight at a time. Among a million ids the
chance that any two share a key is 3e-8.
"""

# n values of one Arrow array

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

UInt64s = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MAX_DIGITS = 19
_WORD_MASKS = np.array([(1 << 8 * num_bytes) - 1 for num_bytes in range(9)], dtype=np.uint64)
_EXACT_FLOAT = 2.0**53
_MAX_INT64 = np.uint64(2**63 - 1)


def mix64(x_n: UInt64s) -> UInt64s:
    """Scatter 64-bit numbers one to one: SplitMix64, Steele et al., OOPSLA 2014, https://doi.org/10.1145/2660193.2660195."""
    z = x_n + _GOLDEN
    shifted = z >> np.uint64(30)
    z ^= shifted
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= np.right_shift(z, np.uint64(27), out=shifted)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= np.right_shift(z, np.uint64(31), out=shifted)
    return z


def is_id_type(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type can be ids, one per value."""
    types = pa.types
    if types.is_dictionary(kind):
        return is_id_type(kind.value_type)
    return bool(
        types.is_null(kind)
        or types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or (types.is_temporal(kind) and not types.is_interval(kind) and not types.is_duration(kind))
        or is_text_type(kind)
    )


def is_text_type(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def canonical(values: pa.Array) -> pa.Array:
    """The same ids as int64 where all are integers within int64, else as canonical text; NaN becomes null.

    Args:
        values: n values of an id type, not a dictionary.
    """
    kind = values.type
    types = pa.types
    if types.is_int64(kind) or types.is_string(kind) or types.is_large_string(kind):
        return values
    if types.is_null(kind):
        return pa.nulls(len(values), pa.string())
    if types.is_integer(kind):
        if types.is_uint64(kind) and (pc.max(values).as_py() or 0) > _MAX_INT64:
            return values.cast(pa.string())
        return values.cast(pa.int64())
    if types.is_floating(kind):
        return _canonical_floats(values)
    if types.is_decimal(kind):
        return _without_trailing_zeros(values.cast(pa.string()))
    if types.is_timestamp(kind):
        # Dropping the zone leaves UTC and needs no time zone database.
        text = _without_trailing_zeros(values.cast(pa.timestamp(kind.unit)).cast(pa.string()))
        return text if kind.tz is None else pc.binary_join_element_wise(text, "Z", "")
    if types.is_time(kind):
        return _without_trailing_zeros(values.cast(pa.string()))
    return values.cast(pa.string())


def _canonical_floats(values: pa.Array) -> pa.Array:
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    numbers = values.fill_null(0.0).to_numpy(zero_copy_only=False).astype(np.float64)
    is_integral = (np.abs(numbers) <= _EXACT_FLOAT) & (np.trunc(numbers) == numbers)
    integers = pa.array(np.where(is_integral, numbers, 0.0).astype(np.int64), mask=~_is_valid(values))
    if is_integral.all():
        return integers
    return pc.if_else(pa.array(is_integral), integers.cast(pa.string()), values.cast(pa.string()))


def _without_trailing_zeros(text: pa.Array) -> pa.Array:
    """ "7.00" → "7", "1.50" → "1.5", "1E+2" and "70" stay."""
    text = pc.replace_substring_regex(text, r"(\.[0-9]*[1-9])0+$", r"\1")
    return pc.replace_substring_regex(text, r"\.0+$", "")


def _is_valid(values: pa.Array) -> NDArray[np.bool_]:
    valid: NDArray[np.bool_] = values.is_valid().to_numpy(zero_copy_only=False)
    return valid


def keys(ids: pa.Array) -> UInt64s:
    """The key of each canonical id; of a null, an arbitrary one."""
    if pa.types.is_int64(ids.type):
        return mix64(_filled(ids).view(np.uint64))
    return _text_keys(ids)


def integers(ids: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The value of each canonical id that is an integer, and which are; null is not."""
    if pa.types.is_int64(ids.type):
        return _filled(ids), _is_valid(ids)
    starts, lengths, data = text_bytes(ids)
    values, is_integer = _parse_integers(starts, lengths, data)
    return values, is_integer & _is_valid(ids)


def _filled(ids: pa.Array) -> NDArray[np.int64]:
    values: NDArray[np.int64] = (ids.fill_null(0) if ids.null_count else ids).to_numpy()
    return values


def _text_keys(text: pa.Array) -> UInt64s:
    starts, lengths, data = text_bytes(text)
    # Eight bytes from any place on: an overlapping little-endian view, whose tail is the padding.
    words = np.ndarray(shape=(len(data) - 7,), dtype="<u8", buffer=data, strides=(1,))
    hashes = mix64(lengths.astype(np.uint64))
    active = np.flatnonzero(lengths > 0)
    done = 0
    while len(active):
        remaining = lengths[active] - done
        word = words[starts[active] + done] & _WORD_MASKS[np.minimum(remaining, 8)]
        hashes[active] = mix64(hashes[active] ^ word)
        done += 8
        active = active[remaining > 8]
    values, is_integer = _parse_integers(starts, lengths, data)
    if is_integer.any():
        hashes[is_integer] = mix64(values[is_integer].view(np.uint64))
    return hashes


def text_bytes(text: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
    """Start and length of each string in a copy of the bytes that ends in eight zero bytes."""
    _, offset_buffer, data_buffer = text.buffers()
    if len(text) == 0 or offset_buffer is None:
        return np.zeros(len(text), np.int64), np.zeros(len(text), np.int64), np.zeros(8, np.uint8)
    offset_type: Any = np.int64 if pa.types.is_large_string(text.type) else np.int32
    offsets = np.frombuffer(offset_buffer, offset_type)[text.offset : text.offset + len(text) + 1].astype(np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    data = np.zeros(last - first + 8, np.uint8)
    if last > first:
        data[:-8] = np.frombuffer(data_buffer, np.uint8)[first:last]
    return offsets[:-1] - first, np.diff(offsets), data


def _parse_integers(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], data: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Which strings are canonical decimals within int64, and their values."""
    values = np.zeros(len(starts), np.int64)
    is_integer = np.zeros(len(starts), np.bool_)
    is_negative = data[starts] == ord("-")
    first_digits = starts + is_negative
    num_digits = lengths - is_negative
    leading = data[first_digits] - np.uint8(ord("0"))
    plain_zero = (leading == 0) & (lengths == 1)
    is_candidate = (num_digits >= 1) & (num_digits <= _MAX_DIGITS) & (((leading >= 1) & (leading <= 9)) | plain_zero)
    rows = np.flatnonzero(is_candidate)
    if not len(rows):
        return values, is_integer
    magnitudes = np.zeros(len(rows), np.uint64)
    for position in range(_MAX_DIGITS):
        inside = num_digits[rows] > position
        if not inside.any():
            break
        # A string may end before this place, so what is read beyond its end must not count.
        places = np.where(inside, first_digits[rows] + position, 0)
        digits = data[places] - np.uint8(ord("0"))
        magnitudes = np.where(inside, magnitudes * np.uint64(10) + digits, magnitudes)
        keep = (digits <= 9) | ~inside
        if not keep.all():
            rows, magnitudes = rows[keep], magnitudes[keep]
    limits = _MAX_INT64 + is_negative[rows].astype(np.uint64)
    rows, magnitudes = rows[magnitudes <= limits], magnitudes[magnitudes <= limits]
    signed = magnitudes.view(np.int64)
    values[rows] = np.where(is_negative[rows], -signed, signed)
    is_integer[rows] = True
    return values, is_integer
