"""parquet_of_json: a file of JSON lines converted to Parquet once."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet as pq

from recmoe.data.csv_source import is_gzip
from recmoe.data.parquet_copy import parquet_copy
from recmoe.errors import DataError

VERSION = 1
"""Raise it when the same file would become another Parquet file."""
BLOCK_BYTES = 64 * 1024 * 1024
"""Bytes parsed at once, and the rest of the last line."""
ROW_GROUP_ROWS = 65_536
_EXACT = 2.0**53


def parquet_of_json(path: Path, *, cache_dir: Path) -> Path:
    """The Parquet file with the rows of a file of JSON lines: an object per line, packed by gzip or not.

    A column has the type that holds the values of all lines; a field that a line lacks is null, and strings stay
    text. The file is read twice.

    Raises:
        DataError: a line is no JSON object, a field is a number in one line and text in another, or it holds
            integers that would lose their last digits.
    """

    def write(target: Path) -> None:
        schema = pa.schema([])
        for _, table in _tables(path, None):
            schema = _joined(path, schema, table.schema)
        if not schema.names:
            raise DataError(f"{path}: holds no JSON object; one is expected in every line")
        with pq.ParquetWriter(target, schema) as writer:
            for first_line, table in _tables(path, schema):
                _check_integers(path, table, first_line)
                writer.write_table(table.select(schema.names).cast(schema), row_group_size=ROW_GROUP_ROWS)

    return parquet_copy(path, cache_dir=cache_dir, settings=(VERSION, BLOCK_BYTES), write=write)


def _tables(path: Path, schema: pa.Schema | None) -> Iterator[tuple[int, pa.Table]]:
    """Blocks of lines, each with the number of its first line; without a schema, types are those of the block."""
    options = None if schema is None else pa.json.ParseOptions(explicit_schema=schema)
    reading = pa.json.ReadOptions(use_threads=False, block_size=2 * BLOCK_BYTES)
    for first_line, block in _blocks(path):
        try:
            yield first_line, pa.json.read_json(pa.BufferReader(block), read_options=reading, parse_options=options)
        except pa.ArrowException as error:
            raise DataError(
                f"{path}: not readable as JSON lines, in the lines from {first_line} on: {error}; "
                "write one object per line, with the same type of value in each field"
            ) from error


def _blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with pa.input_stream(str(path), compression="gzip" if is_gzip(path) else None) as stream:
            first_line, rest = 1, b""
            while data := stream.read(BLOCK_BYTES):
                lines, end, data = (rest + data).rpartition(b"\n")
                if lines.strip():
                    yield first_line, lines
                first_line += lines.count(b"\n") + len(end)
                rest = data
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); write the file anew") from error
    if rest.strip():
        yield first_line, rest


def _joined(path: Path, known: pa.Schema, found: pa.Schema) -> pa.Schema:
    try:
        return pa.unify_schemas([known, _without_times(found)], promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(f"{path}: lines disagree: {error}; write one type of value in each field") from error


def _without_times(schema: pa.Schema) -> pa.Schema:
    """Arrow takes text that looks like a time for one, and drops its zone."""
    return pa.schema([(field.name, _without_time(field.type)) for field in schema])


def _without_time(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_time(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _without_time(field.type)) for field in kind])
    return kind


def _check_integers(path: Path, table: pa.Table, first_line: int) -> None:
    """DataError where Arrow has made floats of integers that none holds: beyond int64, or beside fractions."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        values = pc.list_flatten(column) if pa.types.is_list(column.type) else column
        if not pa.types.is_floating(values.type):
            continue
        numbers = np.abs(values.drop_null().to_numpy())
        # Beyond 1e25 nobody writes the digits of an id.
        if ((numbers > _EXACT) & (numbers < 1e25) & (np.trunc(numbers) == numbers)).any():
            raise DataError(
                f"{path}, lines from {first_line} on, field {name!r}: integers beyond 2^53 beside fractions, or beyond "
                "int64, would lose their last digits; write them as text"
            )
