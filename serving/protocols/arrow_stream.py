"""read_stream: an Arrow IPC stream of candidates from anybody.

Arrow reads any stream without a fault, but not at any cost: a few bytes may stand for gigabytes, in buffers that are
compressed, dictionaries that are repeated, or heads that refer to one text thousands of times. So the heads of the
messages are looked through before Arrow sees them. They are laid out as in
https://arrow.apache.org/docs/format/Columnar.html and its files Message.fbs and Schema.fbs.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from recmoe.errors import RequestError
from recmoe.features.columns import is_list_type
from recmoe.flat_table import FlatTable
from recmoe.ranking.request import check_num_candidates
from recmoe.ranking.texts import short
from serving.body import too_many_values

MAX_BATCHES = 100
MAX_COLUMNS = 1000
"""Columns of a stream; one that holds lists counts twice, for its elements too."""

_SCHEMA, _RECORD_BATCH = 1, 3
_MESSAGE_KINDS = {2: "a dictionary", 4: "a tensor", 5: "a sparse tensor"}
_TYPES = {
    1: "null",
    2: "int",
    3: "float",
    5: "string",
    6: "bool",
    7: "decimal",
    8: "date",
    9: "time",
    10: "timestamp",
    12: "list",
    16: "fixed_size_list",
    20: "large_string",
    21: "large_list",
}
_TIMESTAMP = 10
_ADVICE = "send plain columns of numbers, strings, booleans, times or lists of them"


class _Message(NamedTuple):
    kind: int
    head: FlatTable
    num_bytes: int
    """Of its metadata."""


def read_stream(body: bytes, *, max_candidates: int, max_values: int) -> pa.Table:
    """The candidates of a stream, once it is known to be what it says.

    Args:
        max_candidates: rows of all batches.
        max_values: values, those in lists too.

    Raises:
        RequestError: it is no stream, or one that is not read, and why.
    """
    try:
        _check_heads(body, max_candidates=max_candidates, max_values=max_values)
    except ValueError as error:
        raise _refused(f"is no Arrow stream: {error}") from error
    try:
        with pa.ipc.open_stream(pa.py_buffer(body), options=pa.ipc.IpcReadOptions(use_threads=False)) as reader:
            table = reader.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _refused(f"is no Arrow stream that can be read: {error}") from error
    num_values = sum(_num_values(column) for column in table.columns)
    if num_values > max_values:
        raise too_many_values(num_values, "values", max_values)
    return table


def _check_heads(body: bytes, *, max_candidates: int, max_values: int) -> None:
    """RequestError where a stream says of itself that it holds what is not read, or too much."""
    messages = _messages(memoryview(body))
    num_columns = _check_schema(next(messages))
    num_rows = 0
    for number, message in enumerate(messages):
        if number == MAX_BATCHES:
            raise _refused(f"has more than {MAX_BATCHES} batches; join them (Table.combine_chunks)")
        num_rows += _num_rows(message)
        check_num_candidates(num_rows or 1, max_candidates)
    if num_rows * num_columns > max_values:
        raise too_many_values(num_rows * num_columns, "values", max_values)


def _messages(data: memoryview) -> Iterator[_Message]:
    """The heads of all messages, the schema first; RequestError where the bytes are not those of a stream."""
    place, is_first = 0, True
    while True:
        if place + 8 > len(data):
            raise _refused("is cut: an Arrow stream ends with a mark; close the writer before you send what it wrote")
        mark, num_bytes = struct.unpack_from("<ii", data, place)
        if mark != -1:
            raise _refused("is no Arrow stream: a message does not begin with its mark")
        place += 8
        if num_bytes == 0:
            break
        if not 0 < num_bytes <= len(data) - place:
            raise _refused("is cut, or no Arrow stream: a head is longer than what is there")
        root = FlatTable.root(data[place : place + num_bytes])
        kind, head, num_body_bytes = root.number(1, "B"), root.table(2), root.number(3, "q")
        if head is None or kind not in (_SCHEMA, _RECORD_BATCH) or (kind == _SCHEMA) != is_first:
            what = _MESSAGE_KINDS.get(kind, "a message out of its turn")
            raise _refused(f"holds {what}; write the schema, then batches of plain columns")
        if root.length(4):
            raise _refused("has metadata with a message, where none is read; put it into the schema's")
        yield _Message(kind, head, num_bytes)
        place += num_bytes
        if not 0 <= num_body_bytes <= len(data) - place:
            raise _refused("is cut, or no Arrow stream: a message is longer than what is there")
        place += num_body_bytes
        is_first = False
    if is_first:
        raise _refused("is an Arrow stream without a schema")
    if place != len(data):
        raise _refused(f"goes on for {len(data) - place} bytes after the end of its stream")


def _check_schema(message: _Message) -> int:
    """How many columns there are; RequestError where one is of a type that is not read, or costs more than it sent."""
    if message.head.number(0, "h"):
        raise _refused("has the bytes of its numbers in big-endian order; write little-endian")
    num_columns, num_text_bytes = 0, _num_metadata_bytes(message.head, 2)
    left = [message.head.tables(1)]
    while left:
        field = next(left[-1], None)
        if field is None:
            left.pop()
            continue
        num_columns += 1
        if num_columns > MAX_COLUMNS:
            raise _refused(f"has more than {MAX_COLUMNS} columns, those in lists too; leave out what is no feature")
        type_ = field.number(2, "B")
        if type_ not in _TYPES or field.has(4) or len(left) > 2:
            what = "a dictionary" if field.has(4) else "a type that is not read"
            raise _refused(f"column {num_columns - 1} is {what}; {_ADVICE}")
        num_text_bytes += field.length(0) + _num_metadata_bytes(field, 6)
        details = field.table(3)
        if type_ == _TIMESTAMP and details is not None:
            num_text_bytes += details.length(1)
        # What is written once and referred to often would be read as often.
        if num_text_bytes > message.num_bytes:
            raise _refused("refers to the same text many times in the schema")
        left.append(field.tables(5))
    return num_columns


def _num_metadata_bytes(table: FlatTable, slot: int) -> int:
    """Bytes of the texts of a table's metadata; more than there are in all, where there are too many of them."""
    num_pairs = table.length(slot)
    if num_pairs > MAX_COLUMNS:
        raise _refused(f"has more than {MAX_COLUMNS} entries of metadata in one place")
    return sum(pair.length(0) + pair.length(1) for pair in table.tables(slot))


def _num_rows(batch: _Message) -> int:
    if batch.head.has(3):
        raise _refused("has compressed buffers, whose size nobody knows before; write it without compression")
    num_rows = batch.head.number(0, "q")
    if num_rows < 0:
        raise _refused("has a batch with less than no rows")
    return num_rows


def _num_values(column: pa.ChunkedArray) -> int:
    """Values of a column; those of its lists, where it holds some."""
    if not is_list_type(column.type) and not pa.types.is_fixed_size_list(column.type):
        return len(column)
    return sum(len(chunk.flatten()) for chunk in column.chunks) + len(column)


def columns_of(table: pa.Table) -> dict[str, pa.Array]:
    """The columns by name; RequestError where two have the same."""
    columns: dict[str, pa.Array] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in columns:
            raise RequestError(f"candidates.{short(name)}", "is there twice; rename one of the columns")
        columns[name] = column.combine_chunks()
    return columns


def _refused(reason: str) -> RequestError:
    return RequestError("body", reason)
