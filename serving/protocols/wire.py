"""check_fields: how much a message of Protocol Buffers holds, before it is made; https://protobuf.dev/programming-guides/encoding.

Two bytes may be a whole message inside another, and become fifty in memory.
"""

from collections.abc import Mapping
from contextlib import suppress

from recmoe.errors import RequestError

Nested = Mapping[int, "Nested"]
"""Numbers of the fields that are looked into, and theirs."""

MAX_FIELDS = 10_000
"""Fields that are looked at: four and a raw one for each input, and what is named besides."""
MAX_NESTED_BYTES = 2**20
"""Bytes of all messages in a message; what is larger comes as raw bytes."""

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_SIZES = {_FIXED_64: 8, _FIXED_32: 4}


def check_fields(body: bytes, nested: Nested) -> None:
    """RequestError where a message is cut, has too many fields, or holds large messages."""
    num_fields = num_nested_bytes = 0
    left = [(0, len(body), nested)]
    while left:
        place, end, inner = left.pop()
        while place < end:
            num_fields += 1
            if num_fields > MAX_FIELDS:
                raise RequestError("body", f"has more than {MAX_FIELDS} fields; give fewer inputs")
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
                num_nested_bytes += size if inner is nested else 0
                if num_nested_bytes > MAX_NESTED_BYTES:
                    raise RequestError(
                        "body",
                        f"has inputs of more than {MAX_NESTED_BYTES} bytes; give their elements in raw_input_contents",
                    )
            place += size


def has_text(body: bytes, number: int) -> bool:
    """Whether a message has a field of this number that holds bytes; False where it is no message, as far as seen.

    It is asked before the message is read, and looks at no field inside another.
    """
    place, end = 0, len(body)
    with suppress(RequestError):
        for _ in range(MAX_FIELDS):
            tag, place = _varint(body, place, end)
            size = _SIZES.get(tag & 7, 0)
            if tag & 7 == _VARINT:
                _, place = _varint(body, place, end)
            elif tag & 7 == _BYTES:
                size, place = _varint(body, place, end)
                if tag >> 3 == number and size > 0:
                    return True
            place += size
    return False


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
