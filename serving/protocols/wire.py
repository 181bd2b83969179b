"""check_fields: how much a message of Protocol Buffers holds, before it is made; https://protobuf.dev/programming-guides/encoding.

Two bytes may be a whole message inside another, and become fifty in memory.
"""

from collections.abc import Mapping

from recmoe.errors import RequestError
from serving.body import too_many_values

Nested = Mapping[int, "Nested"]
"""Numbers of the fields that are messages themselves, and theirs."""

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_SIZES = {_FIXED_64: 8, _FIXED_32: 4}


def check_fields(body: bytes, nested: Nested, max_fields: int) -> None:
    """RequestError where a message is cut, or holds more fields than are read, those of inner messages too."""
    num_fields, end = 0, len(body)
    left = [(0, end, nested)]
    while left:
        place, end, inner = left.pop()
        while place < end:
            num_fields += 1
            if num_fields > max_fields:
                raise too_many_values(num_fields, "fields or more", max_fields)
            tag, place = _varint(body, place, end)
            kind = tag & 7
            if kind == _VARINT:
                _, place = _varint(body, place, end)
                continue
            if kind == _BYTES:
                size, place = _varint(body, place, end)
            elif kind in _SIZES:
                size = _SIZES[kind]
            else:
                raise _broken()
            if size > end - place:
                raise _broken()
            if kind == _BYTES and tag >> 3 in inner:
                left.append((place, place + size, inner[tag >> 3]))
            place += size


def _varint(body: bytes, place: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place after it."""
    number = shift = 0
    while place < end and shift < 70:
        byte = body[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
        shift += 7
    raise _broken()


def _broken() -> RequestError:
    return RequestError("body", "is cut, or no message of the protocol")
