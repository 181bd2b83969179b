"""CompactReader: what Thrift's compact protocol writes, read without trust.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from collections.abc import Iterator
from typing import ClassVar

BYTE, DOUBLE, BINARY, LIST, SET, MAP, STRUCT, UUID = 3, 7, 8, 9, 10, 11, 12, 13
_TRUE, _FALSE = 1, 2
_FIXED = {DOUBLE: 8, UUID: 16, BYTE: 1}
MAX_DEPTH = 16
"""Structs and lists inside each other."""


class CompactReader:
    """Reads values one after the other; the caller knows what they mean.

    Args:
        data: the bytes.
        place: where the first value begins.

    Raises:
        ValueError: here and in every method, where the bytes end before the value does, or it is none.
    """

    NUMBERS: ClassVar = (4, 5, 6)
    """Types that ``number`` reads."""

    def __init__(self, data: memoryview, place: int = 0) -> None:
        # Buffers of Arrow are views of signed bytes.
        self._data, self.place = data.cast("B"), place

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a struct; each must be read, or skipped, before the next is asked for."""
        number = 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self.number()
            yield number, head & 15

    def elements(self) -> tuple[int, int]:
        """How many elements a list has, and their type."""
        head = self._byte()
        return (head >> 4 if head >> 4 != 15 else self._varint()), head & 15

    def number(self) -> int:
        """A whole number with its sign."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def skip(self, kind: int, depth: int = 0) -> None:
        """Leave out a value of a type."""
        if depth > MAX_DEPTH:
            raise ValueError(f"it is more than {MAX_DEPTH} deep")
        if kind in self.NUMBERS:
            self._varint()
        elif kind == BINARY:
            self._advance(self._varint())
        elif kind in _FIXED:
            self._advance(_FIXED[kind])
        elif kind in (LIST, SET):
            count, of = self.elements()
            for _ in range(count):
                # Inside of lists a truth value takes a byte.
                self.skip(BYTE if of in (_TRUE, _FALSE) else of, depth + 1)
        elif kind == STRUCT:
            for _, of in self.fields():
                self.skip(of, depth + 1)
        elif kind not in (_TRUE, _FALSE):
            raise ValueError(f"it holds a value of type {kind}, which no such file has")

    def _varint(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ValueError("it holds a number of more than 64 bits")

    def _byte(self) -> int:
        self._advance(1)
        return self._data[self.place - 1]

    def _advance(self, num_bytes: int) -> None:
        self.place += num_bytes
        if self.place > len(self._data):
            raise ValueError("it is cut")
