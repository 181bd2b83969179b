"""SplitWriter: train, validation and test as Parquet, written chunk by chunk."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
ROW_GROUP_ROWS = 32_768


class SplitWriter:
    """Three Parquet files that appear together, once all their rows are written.

    Rows are gathered into row groups of ``ROW_GROUP_ROWS``, however small the chunks are that
    come in. Until the end the files have the ending ``.partial``; after an error they are removed::

        with SplitWriter(folder, schema) as writer:
            writer.write("train", table)
        writer.num_rows["train"]

    Args:
        folder: made if it is missing; files of the same name are replaced.
        schema: columns of every chunk.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.paths: dict[Split, Path] = {split: folder / f"{split}.parquet" for split in SPLITS}
        self.num_rows: dict[Split, int] = dict.fromkeys(SPLITS, 0)
        self._waiting: dict[Split, list[pa.Table]] = {split: [] for split in SPLITS}
        self._num_waiting: dict[Split, int] = dict.fromkeys(SPLITS, 0)
        self._writers = {split: pq.ParquetWriter(self._partial(split), schema, compression="zstd") for split in SPLITS}

    def write(self, split: Split, table: pa.Table) -> None:
        """Append rows to a split."""
        self._waiting[split].append(table)
        self._num_waiting[split] += table.num_rows
        self.num_rows[split] += table.num_rows
        if self._num_waiting[split] >= ROW_GROUP_ROWS:
            self._flush(split, keep_rest=True)

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._finish(is_complete=error is None)
        finally:
            for split in SPLITS:
                self._partial(split).unlink(missing_ok=True)

    def _finish(self, *, is_complete: bool) -> None:
        try:
            if is_complete:
                for split in SPLITS:
                    self._flush(split, keep_rest=False)
        finally:
            for writer in self._writers.values():
                writer.close()
        if is_complete:
            for split in SPLITS:
                os.replace(self._partial(split), self.paths[split])

    def _partial(self, split: Split) -> Path:
        return self.paths[split].with_name(f"{split}.parquet.partial")

    def _flush(self, split: Split, *, keep_rest: bool) -> None:
        table = pa.concat_tables(self._waiting[split]) if self._waiting[split] else None
        if table is None:
            return
        num_ready = table.num_rows // ROW_GROUP_ROWS * ROW_GROUP_ROWS if keep_rest else table.num_rows
        if num_ready:
            self._writers[split].write_table(table.slice(0, num_ready), row_group_size=ROW_GROUP_ROWS)
        rest = table.slice(num_ready)
        self._waiting[split] = [rest] if rest.num_rows else []
        self._num_waiting[split] = rest.num_rows


def write_splits(folder: Path, tables: Mapping[Split, pa.Table]) -> dict[Split, int]:
    """Write three tables that fit in memory; returns their numbers of rows."""
    with SplitWriter(folder, tables["train"].schema) as writer:
        for split in SPLITS:
            writer.write(split, tables[split])
    return writer.num_rows
