"""parquet_of_csv: a CSV file converted to Parquet once."""

import contextlib
import hashlib
import logging
import os
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from recmoe.errors import DataError

logger = logging.getLogger(__name__)

VERSION = 1
"""Raise it when the same CSV file would become another Parquet file."""
BLOCK_BYTES = 64 * 1024 * 1024
"""Bytes parsed at once; the first block decides the types."""
ROW_GROUP_ROWS = 65_536
NULLS = ("", "NULL", "null", "None", "NaN", "nan", "NA", "N/A", "n/a", "#N/A", "<NA>")
"""Unquoted cells that are null, in every column."""
SKIPPED_KEY = b"recmoe.num_skipped_rows"


def parquet_of_csv(path: Path, *, cache_dir: Path, on_error: Literal["fail", "skip"]) -> Path:
    """The Parquet file with the rows of a CSV file; made now, or by an earlier call.

    The first line names the columns. Types are inferred over the first ``BLOCK_BYTES``. The result is
    keyed by path, size and time of change, and appears under its name only when complete: processes
    that convert the same file at once do the work twice and both succeed.

    Args:
        on_error: whether a row with too few or too many cells is an error, or is left out and counted.

    Raises:
        DataError: the file is empty, cut or not UTF-8, a row has a wrong number of cells, or a cell
            does not fit its column's type.
    """
    target = cache_dir / f"{path.name.split('.')[0]}-{_key(path, on_error)}.parquet"
    if _is_readable(target):
        return target
    temporary = cache_dir / f".{target.name}.{uuid.uuid4().hex}"
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        _convert(path, temporary, on_error=on_error)
        os.replace(temporary, target)
    except OSError as error:
        raise DataError(
            f"{cache_dir}: cannot write the Parquet copy of {path} ({error}); set data.cache_dir to a folder with room"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return target


def num_skipped_rows(parquet_metadata: pq.FileMetaData) -> int:
    """Rows that the conversion left out."""
    return int((parquet_metadata.metadata or {}).get(SKIPPED_KEY, b"0"))


def _key(path: Path, on_error: str) -> str:
    stat = path.stat()
    parts = (VERSION, BLOCK_BYTES, on_error, path.resolve(), stat.st_size, stat.st_mtime_ns)
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]


def _is_readable(target: Path) -> bool:
    try:
        pq.read_metadata(target)
    except (OSError, pa.ArrowException):
        return False
    return True


def _convert(path: Path, target: Path, *, on_error: Literal["fail", "skip"]) -> None:
    num_skipped = 0

    def skip_row(row: pa.csv.InvalidRow) -> str:
        nonlocal num_skipped
        num_skipped += 1
        logger.warning(
            "%s, row %s: %s cells, expected %s; left out", path, row.number, row.actual_columns, row.expected_columns
        )
        return "skip"

    with _open(path, skip_row if on_error == "skip" else None) as reader:
        _check_utf8(path, reader.schema)
        with pq.ParquetWriter(target, reader.schema) as writer:
            for batch in _batches(path, reader):
                writer.write_table(pa.Table.from_batches([batch]), row_group_size=ROW_GROUP_ROWS)
            writer.add_key_value_metadata({SKIPPED_KEY: str(num_skipped)})


def _open(path: Path, skip_row: Callable[[pa.csv.InvalidRow], str] | None) -> pa.csv.CSVStreamingReader:
    try:
        return pa.csv.open_csv(
            path,
            # Without threads the messages of errors know the row.
            read_options=pa.csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip_row),
            convert_options=pa.csv.ConvertOptions(
                null_values=list(NULLS), strings_can_be_null=True, quoted_strings_can_be_null=False
            ),
        )
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, [], error) from error


def _batches(path: Path, reader: pa.csv.CSVStreamingReader) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(path, reader.schema.names, error) from error
        yield batch


def _check_utf8(path: Path, schema: pa.Schema) -> None:
    for field in schema:
        if pa.types.is_binary(field.type):
            raise DataError(f"{path}, column {field.name!r}: the text is not UTF-8; save the file in UTF-8")


def _unreadable(path: Path, names: Sequence[str], error: Exception) -> DataError:
    """The reader's message with the column's name, and what to do."""
    message = str(error)
    cell = re.fullmatch(r"In CSV column #(\d+): (?:Row #(\d+): )?(.*)", message, flags=re.DOTALL)
    if cell is None:
        return DataError(f"{path}: not a readable CSV file: {message}; mend the file, or set data.on_error to skip")
    column = names[int(cell[1])] if int(cell[1]) < len(names) else f"number {int(cell[1]) + 1}"
    row = "" if cell[2] is None else f", row {cell[2]} (the header is row 1)"
    return DataError(
        f"{path}{row}, column {column!r}: {cell[3]}; types are taken from the first {BLOCK_BYTES // 2**20} MiB, "
        "so mend the cell, or convert the file to Parquet with the types that you want"
    )
