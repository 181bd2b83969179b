"""FlatTable: what a FlatBuffers table holds, read without trust; https://flatbuffers.dev/internals."""

import struct
from collections.abc import Iterator


class FlatTable:
    """One table: a field is looked up by its slot, the number of its place in the definition.

    Args:
        data: the whole buffer.
        position: where the table begins.

    Raises:
        ValueError: here and in every method, where a place lies outside the buffer.
    """

    def __init__(self, data: memoryview, position: int) -> None:
        self._data, self._position = data, position
        self._slots = position - self._read("i", position)
        self._num_slots = (self._read("H", self._slots) - 4) // 2

    @classmethod
    def root(cls, data: memoryview) -> "FlatTable":
        """The table that a buffer is of."""
        return cls(data, _read(data, "I", 0))

    def number(self, slot: int, kind: str, default: int = 0) -> int:
        """A number, by the letter that ``struct`` has for its kind."""
        place = self._place(slot)
        return default if place is None else self._read(kind, place)

    def has(self, slot: int) -> bool:
        """Whether a field is given."""
        return self._place(slot) is not None

    def table(self, slot: int) -> "FlatTable | None":
        """A table that a field refers to; None where it is not given."""
        place = self._target(slot)
        return None if place is None else FlatTable(self._data, place)

    def length(self, slot: int) -> int:
        """Bytes of a text, or elements of a vector; 0 where it is not given."""
        place = self._target(slot)
        return 0 if place is None else self._read("I", place)

    def tables(self, slot: int) -> Iterator["FlatTable"]:
        """The tables of a vector. Several may be one and the same."""
        place = self._target(slot)
        for index in range(self.length(slot)):
            assert place is not None
            at = place + 4 + 4 * index
            yield FlatTable(self._data, at + self._read("I", at))

    def _place(self, slot: int) -> int | None:
        offset = self._read("H", self._slots + 4 + 2 * slot) if slot < self._num_slots else 0
        return self._position + offset if offset else None

    def _target(self, slot: int) -> int | None:
        place = self._place(slot)
        return None if place is None else place + self._read("I", place)

    def _read(self, kind: str, place: int) -> int:
        return _read(self._data, kind, place)


def _read(data: memoryview, kind: str, place: int) -> int:
    # A negative place would be counted from the end.
    if not 0 <= place <= len(data) - struct.calcsize(f"<{kind}"):
        raise ValueError("the head of a message refers to what is not there")
    (number,) = struct.unpack_from(f"<{kind}", data, place)
    return int(number)
