"""DataFile: one Parquet file, or the Parquet copy of one CSV file, read by row groups."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from recmoe.data.csv_cache import num_skipped_rows, parquet_of_csv
from recmoe.data.files import is_csv
from recmoe.errors import DataError, SchemaError

UNREADABLE = (OSError, pa.ArrowException)
"""What pyarrow raises for files that are cut, corrupt or gone."""


@dataclass(frozen=True)
class DataFile:
    """What the footer says; rows are read when asked for."""

    path: Path
    """As the user knows it: Parquet or CSV."""
    parquet: Path
    """What is read; differs from ``path`` for CSV."""
    num_bytes: int
    modified_ns: int
    """When ``path`` was last written to."""
    schema: pa.Schema
    """All columns, as stored."""
    group_rows: tuple[int, ...]
    """Rows of each row group."""
    bad_groups: frozenset[int] = frozenset()
    """Row groups that cannot be decoded."""
    num_skipped_rows: int = 0
    """Rows left out by the conversion from CSV and in bad row groups."""

    @property
    def num_rows(self) -> int:
        """Rows in row groups that can be read."""
        return sum(self.group_rows[group] for group in self.groups())

    def groups(self) -> Iterator[int]:
        """Row groups that can be read."""
        return (group for group in range(len(self.group_rows)) if group not in self.bad_groups)

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
                raise SchemaError(f"{self.path}: column {column!r} is missing; {hint}columns found: {', '.join(names)}")
            if names.count(column) > 1:
                raise SchemaError(f"{self.path}: column {column!r} is there {names.count(column)} times; rename one")
        return pa.schema([pa.field(column, self.schema.field(column).type) for column in columns])

    def read(self, groups: Sequence[int], schema: pa.Schema) -> pa.Table:
        """Rows of some row groups in the columns and types of a schema.

        Raises:
            DataError: the rows cannot be decoded.
        """
        try:
            with pq.ParquetFile(self.parquet, page_checksum_verification=True) as file:
                table = file.read_row_groups(list(groups), columns=schema.names).select(schema.names)
            return table if table.schema.equals(schema) else table.cast(schema)
        except UNREADABLE as error:
            raise DataError(
                f"{self.path}: cannot read {_row_groups(groups)} ({_reason(error)}); "
                "if the file is damaged, write it anew, or set data.on_error to skip"
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


def open_data_file(path: Path, *, cache_dir: Path, on_error: Literal["fail", "skip"]) -> DataFile:
    """Read the footer; convert a CSV file first.

    Raises:
        DataError: the footer cannot be read, or the CSV file cannot be converted.
    """
    parquet = parquet_of_csv(path, cache_dir=cache_dir, on_error=on_error) if is_csv(path) else path
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
    )


def _reason(error: BaseException) -> str:
    """What pyarrow says, on one line and without bytes of the file in it."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())


def _row_groups(groups: Sequence[int]) -> str:
    return f"row group {groups[0]}" if len(groups) == 1 else f"row groups {groups[0]} to {groups[-1]}"
