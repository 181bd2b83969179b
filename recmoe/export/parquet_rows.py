"""read_rows(): a small Parquet file from anybody, once it is known what its rows take in memory.

Arrow reads a Parquet file as it is told: a column inside of ten thousand others overflows its stack, and a few bytes
stand for gigabytes, in runs of one value, in dictionaries and in packed pages; what the end of a file says of its pages
need not be so. So the schema and the heads of the pages are read here first. They are laid out as in
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recmoe.export.contents import shown
from recmoe.export.thrift import CompactReader

MAX_COLUMNS = 10_000
"""Columns and what they are in: a list takes three."""
MAX_DEPTH = 4
_MAX_FOOTER_BYTES = 2**24
_MAX_DICTIONARY_BYTES = 2**21
"""Of dictionaries whose texts are measured; a larger one counts as a single text. Arrow ends them at half of that."""
_MARK = b"PAR1"
_ENCODING = {5: 2, 8: 4}
"""Fields of a page's head that tell of its values, and where in them their encoding stands."""
_DICTIONARY = 7
"""Field of a page's head that makes it a dictionary."""
_PLAIN, _BY_DICTIONARY = (0, 3), (2, 8)
"""The encodings that Arrow writes unless it is asked for others."""


@dataclass(frozen=True)
class _Page:
    """What the head of a page says."""

    begin: int
    end: int
    num_unpacked: int
    """Bytes."""
    num_values: int
    encoding: int | None
    """None of a dictionary."""


def read_rows(path: Path, *, max_bytes: int) -> pa.Table:
    """All rows of a file.

    Args:
        max_bytes: of the rows in memory; as much, where each text of a dictionary is the longest of them.

    Raises:
        ValueError: the file is no Parquet file of plain columns and lists, or its rows take more.
        OSError, ArrowException: it cannot be read.
    """
    with pa.OSFile(str(path)) as source:
        content = source.read_buffer()
    data = memoryview(content).cast("B")
    _check_schema(_footer(data))
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        # Of files of other writers Arrow reads more than they say.
        if not str(file.metadata.created_by).startswith("parquet-cpp"):
            raise ValueError(f"it was written by {shown(str(file.metadata.created_by))}, not by recmoe")
        num_bytes = sum(_num_bytes(data, *chunk) for chunk in _chunks(file.metadata))
        if num_bytes > max_bytes:
            raise ValueError(f"it takes {num_bytes:,} bytes in memory, and may take {max_bytes:,}")
        table = file.read()
    table.validate(full=True)
    return table


def _footer(data: memoryview) -> memoryview:
    """The end of a file, which says what is in it."""
    tail = data[-8:].tobytes()
    num_bytes = int.from_bytes(tail[:4], "little")
    if not data[:4] == _MARK == tail[4:] or not 0 < num_bytes <= min(len(data) - 12, _MAX_FOOTER_BYTES):
        raise ValueError("it is cut, or no Parquet file")
    return data[len(data) - 8 - num_bytes : len(data) - 8]


def _check_schema(footer: memoryview) -> None:
    """ValueError where columns lie deep inside each other, or are too many."""
    left: list[int] = []
    for num_columns, num_children in enumerate(_numbers_of_children(footer)):
        while left and left[-1] == 0:
            left.pop()
        if left:
            left[-1] -= 1
        left.append(num_children)
        if num_columns > MAX_COLUMNS or len(left) > MAX_DEPTH:
            raise ValueError(f"its columns are more than {MAX_COLUMNS:,}, or lie inside each other")


def _numbers_of_children(footer: memoryview) -> Iterator[int]:
    """Of each column in depth-first order, how many it consists of."""
    reader = CompactReader(footer)
    for number, kind in reader.fields():
        if number != 2:
            reader.skip(kind)
            continue
        for _ in range(reader.elements()[0]):
            num_children = 0
            for field, of in reader.fields():
                if field == 5:
                    num_children = reader.number()
                else:
                    reader.skip(of)
            yield num_children


def _chunks(metadata: pq.FileMetaData) -> Iterator[tuple[pq.ColumnChunkMetaData, pq.ColumnSchema]]:
    """The columns of each group of rows. Pages of those without values are not read."""
    columns = [metadata.schema.column(index) for index in range(metadata.num_columns)]
    for group in (metadata.row_group(index) for index in range(metadata.num_row_groups)):
        for index, column in enumerate(columns):
            if group.column(index).num_values:
                yield group.column(index), column


def _num_bytes(data: memoryview, chunk: pq.ColumnChunkMetaData, column: pq.ColumnSchema) -> int:
    """What a column of a group takes in memory at most."""
    num_bytes, width = 0, max(8, column.length)
    for page in _pages(data, chunk):
        if page.encoding is None and column.physical_type == "BYTE_ARRAY":
            width = max(width, _longest(data, page, chunk.compression))
        num_bytes += page.num_unpacked + page.num_values * (width if page.encoding in _BY_DICTIONARY else 8)
    return num_bytes


def _longest(data: memoryview, page: _Page, codec: str) -> int:
    """Bytes of the longest text of a dictionary."""
    if page.num_unpacked > _MAX_DICTIONARY_BYTES:
        return page.num_unpacked
    packed = data[page.begin : page.end]
    is_packed = codec != "UNCOMPRESSED"
    texts = pa.decompress(packed, page.num_unpacked, codec.lower(), asbytes=True) if is_packed else packed.tobytes()
    place = longest = 0
    while place + 4 <= len(texts):
        (length,) = struct.unpack_from("<I", texts, place)
        place += 4 + length
        longest = max(longest, length)
    return longest


def _pages(data: memoryview, chunk: pq.ColumnChunkMetaData) -> Iterator[_Page]:
    """The pages of a column of a group."""
    place = chunk.data_page_offset
    if chunk.has_dictionary_page:
        place = min(place, chunk.dictionary_page_offset or place)
    end = place + chunk.total_compressed_size
    if not 0 <= place <= end <= len(data):
        raise ValueError("a column lies outside of it")
    while place < end:
        page = _page(CompactReader(data[:end], place))
        if min(page.num_values, page.num_unpacked, page.end - page.begin) < 0 or page.end > end:
            raise ValueError("a page of it leads out of its column")
        yield page
        place = page.end


def _page(reader: CompactReader) -> _Page:
    num_unpacked = num_packed = num_values = 0
    encoding: int | None = -1
    for number, kind in reader.fields():
        if number == 2:
            num_unpacked = reader.number()
        elif number == 3:
            num_packed = reader.number()
        elif number in _ENCODING:
            numbers = _numbers(reader)
            num_values, encoding = numbers.get(1, 0), numbers.get(_ENCODING[number], -1)
        else:
            encoding = None if number == _DICTIONARY else encoding
            reader.skip(kind)
    if encoding is not None and encoding not in (*_PLAIN, *_BY_DICTIONARY):
        raise ValueError(f"a page of it has the encoding {encoding}, which recmoe does not write")
    return _Page(reader.place, reader.place + num_packed, num_unpacked, num_values, encoding)


def _numbers(reader: CompactReader) -> dict[int, int]:
    """The whole numbers of a struct by their fields."""
    numbers = {}
    for number, kind in reader.fields():
        if kind in CompactReader.NUMBERS:
            numbers[number] = reader.number()
        else:
            reader.skip(kind)
    return numbers
