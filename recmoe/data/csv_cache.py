"""parquet_of_csv: a CSV file converted to Parquet once."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from recmoe.data.csv_config import CsvConfig
from recmoe.data.csv_dialect import separator_of
from recmoe.data.csv_source import CsvSource, open_csv_source, readable
from recmoe.data.csv_types import ColumnKind, NumberStyle
from recmoe.data.parquet_copy import parquet_copy
from recmoe.errors import DataError
from recmoe.features.null_marks import OTHER_NULLS, TEXT_NULLS

logger = logging.getLogger(__name__)

VERSION = 2
"""Raise it when the same CSV file would become another Parquet file."""
BLOCK_BYTES = 64 * 1024 * 1024
"""Bytes parsed at once."""
NAMES_BYTES = 8 * 1024 * 1024
"""Bytes in which the first line must end."""
ROW_GROUP_ROWS = 65_536
SKIPPED_KEY = b"recmoe.num_skipped_rows"
VAGUE_KEY = b"recmoe.vague"

OnError = Literal["fail", "skip"]


def parquet_of_csv(
    path: Path, *, config: CsvConfig, text_columns: Collection[str] = (), cache_dir: Path, on_error: OnError
) -> Path:
    """The Parquet file with the rows of a CSV file; made now, or by an earlier call.

    A column has the type that fits all of its cells (see ``ColumnKind``).

    Args:
        config: how cells are read; settled, where several files must be read alike.
        text_columns: those that stay text whatever their cells.
        on_error: whether a row with too few or too many cells is an error, or is left out and counted.

    Raises:
        DataError: the file is empty or cut, its text is not in the encoding, a row has a wrong number of cells, or the
            folder cannot be written to.
    """
    conversion = _Conversion(path, config, frozenset(text_columns), on_error)
    settings = (VERSION, BLOCK_BYTES, on_error, config.model_dump_json(), sorted(text_columns))
    return parquet_copy(path, cache_dir=cache_dir, settings=settings, write=conversion.write)


def num_skipped_rows(parquet_metadata: pq.FileMetaData) -> int:
    """Rows that the conversion left out."""
    return int((parquet_metadata.metadata or {}).get(SKIPPED_KEY, b"0"))


def vague_columns(parquet_metadata: pq.FileMetaData) -> tuple[int, ...]:
    """Places of text columns that hold nothing but marks such as NA, which in a column of numbers are null."""
    places = (parquet_metadata.metadata or {}).get(VAGUE_KEY, b"").decode()
    return tuple(int(place) for place in places.split())


@dataclass
class _Conversion:
    """One file on its way; its cells are read as text and typed here."""

    path: Path
    config: CsvConfig
    text_columns: frozenset[str]
    on_error: OnError
    num_skipped: int = 0
    last_told: int = 0
    """Row that the last warning was about."""
    kinds: list[ColumnKind] = field(default_factory=list)

    def write(self, target: Path) -> None:
        """Read the file once; twice, if a cell widens a column of which rows are written already."""
        source = open_csv_source(self.path, self.config.encoding)
        if not self._write(source, target):
            self._learn(source)
            is_written = self._write(source, target)
            assert is_written, f"{self.path} has changed meanwhile"

    def _learn(self, source: CsvSource) -> None:
        for _ in self._batches(source):
            pass

    def _write(self, source: CsvSource, target: Path) -> bool:
        """Whether the types of the first rows were those of all; if not, what is written is of no use."""
        writer: pq.ParquetWriter | None = None
        try:
            for names, batch in self._batches(source):
                schema = pa.schema([(name, kind.type) for name, kind in zip(names, self.kinds, strict=True)])
                if writer is None:
                    writer = pq.ParquetWriter(target, schema)
                elif schema != writer.schema:
                    return False
                columns = [kind.read(cells) for kind, cells in zip(self.kinds, batch.columns, strict=True)]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=ROW_GROUP_ROWS)
            assert writer is not None
            vague = " ".join(str(place) for place, kind in enumerate(self.kinds) if kind.is_vague)
            writer.add_key_value_metadata({SKIPPED_KEY: str(self.num_skipped), VAGUE_KEY: vague})
            return True
        finally:
            if writer is not None:
                writer.close()

    def _batches(self, source: CsvSource) -> Iterator[tuple[list[str], pa.RecordBatch]]:
        """Names of the columns, and cells as text that the columns' kinds know; an empty batch if there are no rows."""
        self.num_skipped = 0
        separator = separator_of(source, self.config)

        def skip_row(row: pa.csv.InvalidRow) -> str:
            self.num_skipped += 1
            if row.number > self.last_told:
                found = f"{row.actual_columns} cells, expected {row.expected_columns}"
                logger.warning("%s, row %s: %s; left out", self.path, row.number, found)
                self.last_told = row.number
            return "skip"

        handler = skip_row if self.on_error == "skip" else None
        names = self._names(source, separator)
        if not self.kinds:
            self.kinds = [self._kind(name) for name in names]
        with readable(self.path, names):
            reader = self._open(source, separator, handler, names=names, block_bytes=BLOCK_BYTES)
        num_batches = 0
        with reader:
            while True:
                with readable(self.path, names):
                    batch = next(reader, None)
                if batch is None:
                    break
                for kind, cells in zip(self.kinds, batch.columns, strict=True):
                    kind.learn(cells)
                num_batches += 1
                yield names, batch
        if num_batches == 0:
            nothing = [pa.array([], pa.string()) for _ in names]
            yield names, pa.RecordBatch.from_arrays(nothing, names=names)

    def _kind(self, name: str) -> ColumnKind:
        style = NumberStyle(self.config.decimal or ".", self.config.thousands)
        nulls = OTHER_NULLS if self.config.null_values is None else self.config.null_values
        return ColumnKind(style, nulls, is_text=name in self.text_columns)

    def _names(self, source: CsvSource, separator: str) -> list[str]:
        with readable(self.path, []):
            block_bytes = min(BLOCK_BYTES, NAMES_BYTES)
            with self._open(source, separator, lambda _: "skip", names=(), block_bytes=block_bytes) as reader:
                names = list(reader.schema.names)
        if self.config.columns and len(self.config.columns) != len(names):
            raise DataError(
                f"{self.path}: has {len(names)} columns, but data.csv.columns names {len(self.config.columns)}; "
                "name all of them, or set data.csv.separator"
            )
        return list(self.config.columns) or names

    def _open(
        self,
        source: CsvSource,
        separator: str,
        skip_row: Callable[[pa.csv.InvalidRow], str] | None,
        *,
        names: Sequence[str],
        block_bytes: int,
    ) -> pa.csv.CSVStreamingReader:
        """A reader whose columns are text, but for those of unknown names."""
        given = self.config.columns if names else ()
        nulls = TEXT_NULLS if self.config.null_values is None else self.config.null_values
        return pa.csv.open_csv(
            source.open(),
            # Without threads the messages of errors know the row.
            read_options=pa.csv.ReadOptions(
                block_size=block_bytes,
                use_threads=False,
                encoding=source.encoding,
                column_names=list(given) or None,
                skip_rows_after_names=1 if given and self.config.has_header else 0,
                autogenerate_column_names=not given and not self.config.has_header,
            ),
            parse_options=pa.csv.ParseOptions(
                delimiter=separator, newlines_in_values=True, invalid_row_handler=skip_row
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=list(nulls),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
