"""RowBytes: rows of a table as bytes each, and back, in steps per column and not per value."""

# B rows, n values of all rows, w bytes of a value

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recmoe.features.columns import is_list_type
from recmoe.features.id_keys import is_text_type, text_bytes

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
_LENGTH = 4
"""Bytes of the length of a text or a list."""


class RowBytes:
    """Writes and reads rows of one schema; numbers are little-endian, and nothing is aligned.

    A row is a head of fixed size, with a byte per column that says whether there is a value, and the values or their
    lengths; then the content of texts and lists, column after column::

        item_id: int16, words: list<string>     {7, ["red", null]}

        head     1 1 | 7 0 | 2 0 0 0
        content  1 0 | 3 0 0 0  0 0 0 0 | r e d      of the list: whether there are values, their lengths, the text

    Args:
        schema: of the rows; texts and lists have offsets of 64 bits.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        widths = [(f"value{place}", np.uint8, (_width(type_),)) for place, type_ in enumerate(schema.types)]
        self._head = np.dtype([("valid", np.uint8, (len(schema),)), *widths])

    def write(self, rows: pa.Table) -> list[bytes]:
        """B rows."""
        num_rows = rows.num_rows
        heads_B, ones_B = np.zeros(num_rows, self._head), np.ones(num_rows, np.int64)
        streams: list[tuple[Bytes, Ints]] = []
        for place, name in enumerate(self.schema.names):
            values = pa.concat_arrays(rows.column(name).chunks) if num_rows else pa.nulls(0, self.schema.types[place])
            heads_B["valid"][:, place] = _valid(values)
            heads_B[f"value{place}"] = _fixed(values)
            _write_content(values, ones_B, streams)
        sizes_B = self._head.itemsize + sum((sizes for _, sizes in streams), np.zeros(num_rows, np.int64))
        ends_B = np.cumsum(sizes_B)
        data = np.empty(int(sizes_B.sum()), np.uint8)
        streams.insert(0, (heads_B.view(np.uint8), np.full(num_rows, self._head.itemsize)))
        at_B = ends_B - sizes_B
        for content, of_row_B in streams:
            data[_places(at_B, of_row_B)] = content
            at_B = at_B + of_row_B
        text = data.tobytes()
        return [text[end - size : end] for size, end in zip(sizes_B.tolist(), ends_B.tolist(), strict=True)]

    def read(self, rows: Sequence[bytes]) -> pa.Table:
        """What ``write`` wrote; ValueError where a row is too short or too long."""
        size = self._head.itemsize
        sizes_B = np.fromiter(map(len, rows), np.int64, len(rows))
        if (sizes_B < size).any():
            raise ValueError(f"a row of {int(sizes_B.min())} bytes, of which the head alone has {size}")
        heads_B = np.frombuffer(b"".join([row[:size] for row in rows]), self._head)
        content = _Content(b"".join(rows), sizes_B, size)
        ones_B, valid_KB = np.ones(len(rows), np.int64), np.ascontiguousarray(heads_B["valid"].T)
        columns = [
            _array(type_, valid_KB[place], np.ascontiguousarray(heads_B[f"value{place}"]), ones_B, content)
            for place, type_ in enumerate(self.schema.types)
        ]
        content.check_end()
        return pa.table(columns, schema=self.schema)


class _Content:
    """Reads what stands behind the heads of all rows, piece by piece."""

    def __init__(self, text: bytes, sizes_B: Ints, start: int) -> None:
        self._data = np.frombuffer(text, np.uint8)
        self._ends_B = np.cumsum(sizes_B)
        self._at_B = self._ends_B - sizes_B + start

    def take(self, sizes_B: Ints) -> Bytes:
        """The next bytes of every row, row after row."""
        at_B, self._at_B = self._at_B, self._at_B + sizes_B
        if (self._at_B > self._ends_B).any():
            raise ValueError("a row ends before its texts and lists do")
        found: Bytes = self._data[_places(at_B, sizes_B)]
        return found

    def check_end(self) -> None:
        if (self._at_B != self._ends_B).any():
            raise ValueError("a row goes on behind its last column")


def _is_flat(type_: pa.DataType) -> bool:
    return not is_list_type(type_) and not is_text_type(type_)


def _width(type_: pa.DataType) -> int:
    """w of a value, or of the length of one without a fixed size; a truth value takes a byte."""
    return max(1, type_.bit_width // 8) if _is_flat(type_) else _LENGTH


def _valid(values: pa.Array) -> Bytes:
    valid: Bytes = values.is_valid().to_numpy(zero_copy_only=False).astype(np.uint8)
    return valid


def _lengths(values: pa.Array) -> Ints:
    """Bytes of each text or elements of each list, 0 of a null."""
    lengths = pc.binary_length(values) if is_text_type(values.type) else pc.list_value_length(values)
    found: Ints = lengths.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return found


def _fixed(values: pa.Array) -> Bytes:
    """fixed_nw: values, zero where they are null, or lengths."""
    type_ = values.type
    if not _is_flat(type_):
        return _lengths(values).astype("<u4").view(np.uint8).reshape(-1, _LENGTH)
    if pa.types.is_boolean(type_):
        values, type_ = values.cast(pa.uint8()), pa.uint8()
    width = _width(type_)
    if not len(values):
        return np.zeros((0, width), np.uint8)
    data = np.frombuffer(values.buffers()[1], np.uint8)
    fixed = data[values.offset * width : (values.offset + len(values)) * width].reshape(-1, width)
    return fixed * _valid(values)[:, None]


def _write_content(values: pa.Array, counts_B: Ints, streams: list[tuple[Bytes, Ints]]) -> None:
    """Append what stands behind the head for some values.

    Args:
        counts_B: how many of the values each row has.
        streams: bytes, row after row, and how many each row has of them.
    """
    if _is_flat(values.type):
        return
    inner_B = _sums(_lengths(values), counts_B)
    if is_text_type(values.type):
        _, _, text = text_bytes(values.fill_null("").cast(pa.large_string()))
        streams.append((text[:-8], inner_B))
        return
    inner = values.flatten()
    streams.append((_valid(inner), inner_B))
    streams.append((_fixed(inner).reshape(-1), inner_B * _width(inner.type)))
    _write_content(inner, inner_B, streams)


def _array(type_: pa.DataType, valid: Bytes, fixed: Bytes, counts_B: Ints, content: _Content) -> pa.Array:
    """n values; those without a fixed size take their content."""
    mask = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    if pa.types.is_boolean(type_):
        return pa.Array.from_buffers(type_, len(valid), [mask, pa.py_buffer(np.packbits(fixed, bitorder="little"))])
    if _is_flat(type_):
        return pa.Array.from_buffers(type_, len(valid), [mask, pa.py_buffer(np.ascontiguousarray(fixed))])
    lengths = np.ascontiguousarray(fixed).view("<u4").reshape(-1).astype(np.int64)
    offsets = pa.py_buffer(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    inner_B = _sums(lengths, counts_B)
    if is_text_type(type_):
        text = pa.py_buffer(content.take(inner_B))
        array = pa.Array.from_buffers(type_, len(valid), [mask, offsets, text])
        array.validate(full=True)
        return array
    inner_valid = content.take(inner_B)
    width = _width(type_.value_type)
    inner_fixed = content.take(inner_B * width).reshape(-1, width)
    inner = _array(type_.value_type, inner_valid, inner_fixed, inner_B, content)
    return pa.Array.from_buffers(type_, len(valid), [mask, offsets], children=[inner])


def _sums(numbers: Ints, counts_B: Ints) -> Ints:
    """Sums of the next ``counts_B`` numbers, row by row."""
    sums, ends_B = np.concatenate([[0], np.cumsum(numbers)]), np.cumsum(counts_B)
    found: Ints = sums[ends_B] - sums[ends_B - counts_B]
    return found


def _places(starts_B: Ints, sizes_B: Ints) -> Ints:
    """start, start + 1, … of each row."""
    shifts_B = starts_B - np.cumsum(sizes_B) + sizes_B
    return np.repeat(shifts_B, sizes_B) + np.arange(int(sizes_B.sum()))
