"""Tensor: one input of a KServe request, its elements as an Arrow array."""

# N elements

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from recmoe.errors import RequestError
from recmoe.ranking.texts import short, shown
from recmoe.ranking.values import to_arrow
from serving.body import too_many_values

BYTES = "BYTES"
NUMBERS: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Elements of the datatypes that are no text, as binary data has them."""
_PREFIX = struct.Struct("<I")


@dataclass(frozen=True)
class TensorHead:
    """What a tensor says of itself."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @classmethod
    def checked(cls, name: str, datatype: str, shape: Sequence[int], *, max_values: int) -> "TensorHead":
        """A head that can be; RequestError where it cannot, or announces too many elements."""
        head = cls(name, datatype, tuple(shape))
        if datatype != BYTES and datatype not in NUMBERS:
            raise head.error(f"datatype {short(datatype)} is not read; there are {', '.join([*NUMBERS, BYTES])}")
        if not 1 <= len(head.shape) <= 2 or min(head.shape) < 0:
            raise head.error(f"has the shape {list(head.shape[:9])}; give one axis, or two for lists")
        check_total(head.num_elements, max_values)
        return head

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"inputs.{short(self.name)}"

    def error(self, reason: str) -> RequestError:
        return RequestError(self.label, reason)


@dataclass(frozen=True)
class Tensor:
    """An input."""

    head: TensorHead
    values: pa.Array
    """All elements, row after row; NaN is null, as a tensor has no other way to leave a value out."""


def unread(head: TensorHead) -> Tensor:
    """An input of which no more is read than that it is there."""
    return Tensor(head, pa.nulls(0))


def check_total(num_elements: int, max_values: int) -> int:
    """The number of elements; RequestError where it is more than are read."""
    if num_elements > max_values:
        raise too_many_values(num_elements, "elements", max_values)
    return num_elements


def of_values(head: TensorHead, values: Sequence[Any]) -> Tensor:
    """A tensor from what JSON or a message holds; null stays null. RequestError where it does not fit its head."""
    _check_count(head, len(values))
    type_ = pa.string() if head.datatype == BYTES else pa.from_numpy_dtype(NUMBERS[head.datatype])
    if head.datatype == "FP16":
        type_ = pa.float32()
    return Tensor(head, to_arrow(values, type_, lambda place: f"{head.label}[{place}]"))


def flattened(head: TensorHead, data: Any) -> list[Any]:
    """The elements of nested lists; RequestError where they are nested otherwise than the shape says."""
    if not isinstance(data, list):
        raise head.error(f"data: expected a list, found {shown(data)}")
    if len(head.shape) == 2 and any(isinstance(row, list) for row in data):
        if not all(isinstance(row, list) and len(row) == head.shape[1] for row in data):
            raise head.error(f"data: expected {head.shape[0]} lists of {head.shape[1]} elements, or all in one list")
        return [element for row in data for element in row]
    return data


def of_bytes(head: TensorHead, data: memoryview) -> Tensor:
    """A tensor from binary data; RequestError where that is not as long as the head says, or no UTF-8."""
    if head.datatype == BYTES:
        return Tensor(head, _texts(head, data))
    dtype = NUMBERS[head.datatype]
    if len(data) != head.num_elements * dtype.itemsize:
        raise head.error(
            f"has {len(data)} bytes; {head.num_elements} elements of {head.datatype} take "
            f"{head.num_elements * dtype.itemsize}"
        )
    if head.datatype == "BOOL":
        return Tensor(head, pa.array(np.frombuffer(data, np.uint8) != 0))
    numbers_N = np.frombuffer(data, dtype)
    if head.datatype == "FP16":
        numbers_N = numbers_N.astype(np.float32)
    return Tensor(head, pa.array(numbers_N, from_pandas=True))


def _texts(head: TensorHead, data: memoryview) -> pa.Array:
    """Texts, each after its length; one by one, as the place of each depends on the lengths before."""
    content = data.tobytes()
    place, num_bytes = 0, len(content)
    texts: list[bytes] = []
    most = head.num_elements
    while place < num_bytes and len(texts) <= most:
        start = place + _PREFIX.size
        length = _PREFIX.unpack_from(content, place)[0] if start <= num_bytes else num_bytes
        place = start + length
        texts.append(content[start:place])
    if place != num_bytes:
        raise head.error("is cut, or no sequence of texts with their lengths before them")
    return texts_of(head, texts).values


def texts_of(head: TensorHead, texts: Sequence[bytes]) -> Tensor:
    """A tensor of texts that came one by one; RequestError where one is no UTF-8, or they do not fit the head."""
    _check_count(head, len(texts))
    try:
        return Tensor(head, pa.array(texts, pa.binary()).cast(pa.string()))
    except pa.ArrowInvalid as error:
        raise head.error("holds what is not UTF-8") from error


def _check_count(head: TensorHead, num_elements: int) -> None:
    if num_elements != head.num_elements:
        raise head.error(f"has {num_elements} elements, its shape {list(head.shape)} says {head.num_elements}")
