"""DataFile: one Parquet file, or the Parquet copy of another one, read by row groups."""

# N rows

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recmoe.data.column_types import is_text
from recmoe.data.csv_cache import num_skipped_rows, parquet_of_csv, vague_columns
from recmoe.data.csv_config import READ_AS_IT_IS, CsvConfig
from recmoe.data.csv_types import typed
from recmoe.data.files import is_csv, is_json
from recmoe.data.json_cache import parquet_of_json
from recmoe.data.partitions import partition_values
from recmoe.errors import DataError, SchemaError
from recmoe.features.columns import shown_names

END_BYTES = 65_536
"""Bytes at each end of a file that tell it from others of its size."""
UNREADABLE = (OSError, pa.ArrowException)
"""What pyarrow raises for files that are cut, corrupt or gone."""
EXACT_FLOAT = 2**53


@dataclass(frozen=True)
class DataFile:
    """What the footer says; rows are read when asked for."""

    path: Path
    """As the user knows it: Parquet, CSV or JSON lines."""
    parquet: Path
    """What is read; differs from ``path`` where that is not Parquet."""
    num_bytes: int
    modified_ns: int
    """When ``path`` was last written to."""
    schema: pa.Schema
    """All columns, as stored; those of the folders come last."""
    group_rows: tuple[int, ...]
    """Rows of each row group."""
    bad_groups: frozenset[int] = frozenset()
    """Row groups that cannot be decoded."""
    num_skipped_rows: int = 0
    """Rows left out by the conversion from CSV and in bad row groups."""
    vague: frozenset[str] = frozenset()
    """Columns of text that hold nothing but marks which are null among numbers."""
    constants: Mapping[str, pa.Scalar] = field(default_factory=dict)
    """Columns of one value, which the folders of the file give."""

    @property
    def is_csv(self) -> bool:
        """Whether it was converted from CSV, so that a column's type is a reading of its text."""
        return is_csv(self.path)

    @property
    def num_rows(self) -> int:
        """Rows in row groups that can be read."""
        return sum(self.group_rows[group] for group in self.groups())

    def groups(self) -> Iterator[int]:
        """Row groups that can be read."""
        return (group for group in range(len(self.group_rows)) if group not in self.bad_groups)

    def ends(self) -> str:
        """Hash of the first and last bytes; a Parquet file ends with its metadata."""
        with self.path.open("rb") as file:
            first = file.read(END_BYTES)
            file.seek(max(0, self.num_bytes - END_BYTES))
            return hashlib.sha256(first + file.read(END_BYTES)).hexdigest()

    def select(self, columns: Collection[str]) -> pa.Schema:
        """Some columns, in the order given.

        Raises:
            SchemaError: a column is not in the file, or is there twice.
        """
        names = self.schema.names
        for column in columns:
            if column not in names:
                close = get_close_matches(column, names, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                found = shown_names(names)
                raise SchemaError(f"{self.path}: column {column!r} is missing; {hint}columns found: {found}")
            if names.count(column) > 1:
                raise SchemaError(f"{self.path}: column {column!r} is there {names.count(column)} times; rename one")
        return pa.schema([pa.field(column, self.schema.field(column).type) for column in columns])

    def has_large_integers(self, column: str) -> bool:
        """Whether there are integers beyond 2^53, as far as the footer's statistics tell; in a list too."""
        metadata = pq.read_metadata(self.parquet)
        for group in range(metadata.num_row_groups):
            for place in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(place)
                if chunk.path_in_schema != column and not chunk.path_in_schema.startswith(f"{column}.list."):
                    continue
                if chunk.physical_type == "INT64" and chunk.is_stats_set and chunk.statistics.has_min_max:
                    ends = (chunk.statistics.min, chunk.statistics.max)
                    if any(isinstance(end, int) and abs(end) > EXACT_FLOAT for end in ends):
                        return True
        return False

    def read(self, groups: Sequence[int], schema: pa.Schema) -> pa.Table:
        """Rows of some row groups in the columns and types of a schema.

        Raises:
            DataError: the rows cannot be decoded.
        """
        stored = [name for name in schema.names if name not in self.constants]
        try:
            with pq.ParquetFile(self.parquet, page_checksum_verification=True) as file:
                table = file.read_row_groups(list(groups), columns=stored).select(stored)
        except UNREADABLE as error:
            raise DataError(
                f"{self.path}: cannot read {_row_groups(groups)} ({_reason(error)}); "
                "if the file is damaged, write it anew, or set data.on_error to skip"
            ) from error
        if table.schema.equals(schema):
            return table
        num_rows = sum(self.group_rows[group] for group in groups)
        return pa.table([self._column(table, one, num_rows) for one in schema], schema=schema)

    def _column(self, table: pa.Table, wanted: pa.Field, num_rows: int) -> pa.ChunkedArray:
        """A column in the type that holds the values of all files."""
        if wanted.name in self.constants:
            return pa.chunked_array([pa.repeat(self.constants[wanted.name].cast(wanted.type), num_rows)])
        column = table[wanted.name]
        if column.type == wanted.type:
            return column
        if wanted.name in self.vague and pa.types.is_string(column.type) and not is_text(wanted.type):
            return pa.chunked_array([pa.nulls(num_rows, wanted.type)])
        try:
            if pa.types.is_floating(column.type) and pa.types.is_integer(wanted.type):
                column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
            return column.cast(wanted.type)
        except pa.ArrowException as error:
            raise DataError(
                f"{self.path}: column {wanted.name!r} is {column.type}, which cannot be read as {wanted.type} like "
                f"that of the other files ({_reason(error)}); write the files with one type"
            ) from error

    def verified(self, schema: pa.Schema) -> tuple["DataFile", list[str]]:
        """This file without the row groups that cannot be decoded, and why each is left out."""
        bad: list[int] = []
        reasons: list[str] = []
        for group in range(len(self.group_rows)):
            try:
                self.read([group], schema).validate(full=True)
            except (DataError, *UNREADABLE) as error:
                bad.append(group)
                reason = _reason(error.__cause__ or error)
                reasons.append(f"{self.path}: row group {group} left out, {self.group_rows[group]} rows: {reason}")
        num_rows = sum(self.group_rows[group] for group in bad)
        return replace(self, bad_groups=frozenset(bad), num_skipped_rows=self.num_skipped_rows + num_rows), reasons


def open_data_file(
    path: Path,
    *,
    cache_dir: Path,
    on_error: Literal["fail", "skip"],
    csv: CsvConfig = READ_AS_IT_IS,
    text_columns: Collection[str] = (),
) -> DataFile:
    """Read the footer; convert a file of CSV or JSON lines first.

    Args:
        csv: how a CSV file is written.
        text_columns: those of a CSV file that stay text, whatever they look like.

    Raises:
        DataError: the footer cannot be read, or the file cannot be converted.
    """
    parquet = path
    if is_csv(path):
        parquet = parquet_of_csv(path, config=csv, text_columns=text_columns, cache_dir=cache_dir, on_error=on_error)
    elif is_json(path):
        parquet = parquet_of_json(path, cache_dir=cache_dir)
    try:
        with pq.ParquetFile(parquet) as file:
            metadata, schema = file.metadata, file.schema_arrow
        stat = path.stat()
    except UNREADABLE as error:
        raise DataError(
            f"{path}: not a readable Parquet file ({_reason(error)}); "
            "if it is cut or damaged, write it anew, or set data.on_error to skip"
        ) from error
    return DataFile(
        path=path,
        parquet=parquet,
        num_bytes=stat.st_size,
        modified_ns=stat.st_mtime_ns,
        schema=schema.remove_metadata(),
        group_rows=tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)),
        num_skipped_rows=num_skipped_rows(metadata),
        vague=frozenset(schema.names[place] for place in vague_columns(metadata)),
    )


def with_partitions(files: Sequence[DataFile]) -> list[DataFile]:
    """The files with a column for every folder ``name=value`` above them, unless a file has that column itself.

    A column is typed by its values in all of the files, as a column of CSV is.
    """
    values = [partition_values(file.path) for file in files]
    constants: list[dict[str, pa.Scalar]] = [{} for _ in files]
    for name in dict.fromkeys(name for one in values for name in one):
        places = [place for place, one in enumerate(values) if name in one and name not in files[place].schema.names]
        for place, value in zip(places, typed([values[place][name] for place in places]), strict=True):
            constants[place][name] = value
    return [
        replace(file, constants=given, schema=_extended(file.schema, given)) if given else file
        for file, given in zip(files, constants, strict=True)
    ]


def _extended(schema: pa.Schema, constants: Mapping[str, pa.Scalar]) -> pa.Schema:
    return pa.schema([*schema, *(pa.field(name, value.type) for name, value in constants.items())])


def _reason(error: BaseException) -> str:
    """What pyarrow says, on one line and without bytes of the file in it."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())


def _row_groups(groups: Sequence[int]) -> str:
    return f"row group {groups[0]}" if len(groups) == 1 else f"row groups {groups[0]} to {groups[-1]}"
