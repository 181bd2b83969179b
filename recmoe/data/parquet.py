"""ParquetStream: files larger than memory as batches of raw rows, shuffled, shared out to ranks."""

# N rows of the stream, R rows that remain of an epoch, W ranks, B rows per batch

import hashlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.data.common_columns import common_columns
from recmoe.data.csv_config import READ_AS_IT_IS, CsvConfig
from recmoe.data.data_file import DataFile
from recmoe.data.files import find_files
from recmoe.data.open_files import open_files
from recmoe.data.order import Cursor, EpochOrder, Interval, RowGroup
from recmoe.data.row_block import RowBlock, joined
from recmoe.errors import DataError, SchemaError

__all__ = ["Cursor", "ParquetStream"]

Window = tuple[RowGroup, ...]


class ParquetStream:
    """Rows of Parquet, CSV and JSON lines files in a seeded order, of which a ``Cursor`` tells what remains.

    In memory are one window of rows (``shuffle_rows`` and at most a row group more) and the next one,
    which is read ahead. A stream that is a single window keeps it for the next epoch.

    Args:
        paths: files, folders and globs; see ``find_files``.
        seed: of the order of rows.
        shuffle_rows: rows shuffled together; None keeps the order of the files.
        shuffle_block: rows that follow each other and stay together.
        on_error: whether damaged rows are an error, or are looked for at opening, by reading
            everything once, and left out.
        cache_dir: where other files are converted to Parquet.
        csv: how CSV files are written; what it leaves open is recognised from the first of them.
        columns: the columns to read; by default those that all files have, in types that fit each other.

    Raises:
        DataError: a path without data files, a file that cannot be read, no rows at all.
        SchemaError: a column that a file lacks or stores as another type than the files before it.
    """

    def __init__(
        self,
        paths: Sequence[str],
        *,
        seed: int,
        shuffle_rows: int | None,
        shuffle_block: int = 1,
        on_error: Literal["fail", "skip"] = "fail",
        cache_dir: Path,
        csv: CsvConfig = READ_AS_IT_IS,
        columns: Sequence[str] | None = None,
    ) -> None:
        assert seed >= 0
        assert shuffle_rows is None or shuffle_rows > 0
        if not paths:
            raise DataError("the split is empty: no files are given; name them under data")
        self.seed = seed
        self.shuffle_rows = shuffle_rows
        self.shuffle_block = shuffle_block
        found = find_files(paths)
        self.skipped: list[str]
        """What was left out and why, a line per file or row group."""
        self._files, self.skipped = open_files(found, cache_dir=cache_dir, on_error=on_error, csv=csv)
        self.num_skipped_files = len(self.skipped)
        self.arrow_schema: pa.Schema
        self.problems: dict[str, str]
        """Why some columns cannot be read: not all files have them, or not in types that fit each other."""
        self.arrow_schema, self.problems = common_columns(self._files)
        if columns is not None:
            self.require(columns)
            self.arrow_schema = pa.schema([self.arrow_schema.field(column) for column in columns])
        if on_error == "skip":
            self._files = [self._verified(file) for file in self._files]
        self.files = tuple(file.path for file in self._files)
        self.num_rows = sum(file.num_rows for file in self._files)
        self.num_skipped_rows = sum(file.num_skipped_rows for file in self._files)
        if self.num_rows == 0:
            raise DataError(
                f"the split is empty: no rows in {', '.join(paths)} ({len(found)} files, {self.num_skipped_files} of "
                f"them unreadable, {self.num_skipped_rows} rows skipped); name files with rows under data"
            )
        self._groups = tuple(_row_groups(self._files))
        self._kept: tuple[tuple[Window, tuple[str, ...]], pa.Table] | None = None

    @property
    def identity(self) -> str:
        """Hash of the sizes, row counts, beginnings and ends of the files: the same wherever they lie."""
        parts = [
            f"{file.ends()}\n{file.num_bytes}\n{[file.group_rows[i] for i in file.groups()]}" for file in self._files
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def revision(self) -> str:
        """Hash of the paths, sizes, times of change and row groups of the files: another one once one is written to."""
        parts = [
            # The name of what was made of a CSV file tells how; folders may give columns, and links other folders.
            (str(file.path.resolve()), file.num_bytes, file.modified_ns, file.group_rows, sorted(file.bad_groups))
            + ((file.parquet.name,) if file.is_csv else ())
            + ((str(file.constants),) if file.constants else ())
            for file in self._files
        ]
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def require(self, columns: Sequence[str]) -> None:
        """Check that the stream has some columns.

        Raises:
            SchemaError: a file lacks one, or stores it as another type than the others.
        """
        for column in columns:
            if column in self.problems:
                raise SchemaError(self.problems[column])
            if column not in self.arrow_schema.names and self._files:
                self._files[0].select([column])
                raise AssertionError(f"{column} is not among the columns of the stream")

    def file_row(self, row: int) -> tuple[Path, int]:
        """File, and row in it, of a row in the order of the files."""
        for group in self._groups:
            if row < group.num_rows:
                return self.files[group.file], group.first_row + row
            row -= group.num_rows
        raise AssertionError("row is beyond the stream")

    def start(self, epoch: int = 0) -> Cursor:
        """The cursor of a whole epoch."""
        assert epoch >= 0
        return Cursor(epoch, ((0, self.num_rows),))

    def num_steps(self, cursor: Cursor, *, world_size: int, batch_size: int) -> int:
        """Steps that every rank can take with full batches: R // (W * B).

        Raises:
            DataError: a whole epoch has fewer rows than one step.
        """
        num_steps = cursor.num_steps(world_size=world_size, batch_size=batch_size)
        if num_steps == 0 and cursor == self.start(cursor.epoch):
            raise DataError(
                f"the split has {self.num_rows} rows, fewer than one step of {world_size} x {batch_size}; "
                "lower training.batch_size or the number of workers"
            )
        return num_steps

    def advance(self, cursor: Cursor, *, num_steps: int, world_size: int, batch_size: int) -> Cursor:
        """The cursor after some more steps of all ranks."""
        return cursor.advance(num_steps, world_size=world_size, batch_size=batch_size)

    def batches(self, cursor: Cursor, *, rank: int, world_size: int, batch_size: int) -> Iterator[pa.Table]:
        """What a rank reads from a cursor on: ``num_steps`` tables of B rows."""
        blocks = self.blocks(cursor, rank=rank, world_size=world_size, batch_size=batch_size)
        return (block.table for block in blocks)

    def chunks(self, *, rank: int = 0, world_size: int = 1, batch_size: int) -> Iterator[pa.Table]:
        """Rows in the order of the files, each exactly once over all ranks; the last table may be short."""
        intervals = [self.file_order_share(rank=rank, world_size=world_size)]
        return (block.table for block in self.blocks_in_file_order(intervals, batch_size=batch_size))

    def file_order_share(self, *, rank: int, world_size: int) -> Interval:
        """Positions in the order of the files that belong to a rank; shares differ by one row at most."""
        assert 0 <= rank < world_size
        return rank * self.num_rows // world_size, (rank + 1) * self.num_rows // world_size

    def blocks(
        self, cursor: Cursor, *, rank: int, world_size: int, batch_size: int, columns: Sequence[str] | None = None
    ) -> Generator[RowBlock]:
        """``batches`` that know where their rows came from, of all columns or some."""
        order, share = self._share(cursor, rank=rank, world_size=world_size, batch_size=batch_size)
        return self._blocks(order, share, batch_size, columns)

    def windows(
        self, cursor: Cursor, *, rank: int, world_size: int, batch_size: int
    ) -> Iterator[tuple[list[Interval], NDArray[np.int64]]]:
        """The rows of ``blocks`` without reading them, counted in the order of the files.

        Yields:
            ranges: rows that were shuffled together.
            rows: what to take of them, in order; batches run on from one window to the next.
        """
        order, share = self._share(cursor, rank=rank, world_size=world_size, batch_size=batch_size)
        ends = np.cumsum([group.num_rows for group in self._groups]).tolist()
        places = {group: (end - group.num_rows, end) for group, end in zip(self._groups, ends, strict=True)}
        for number, rows in order.visits(share):
            ranges = [places[group] for group in order.windows[number]]
            yield ranges, np.concatenate([np.arange(*one, dtype=np.int64) for one in ranges])[rows]

    def _share(
        self, cursor: Cursor, *, rank: int, world_size: int, batch_size: int
    ) -> tuple[EpochOrder, tuple[Interval, ...]]:
        """The order of an epoch, and the positions in it of a rank's full batches."""
        assert cursor.remaining == () or cursor.remaining[-1][1] <= self.num_rows
        num_rows = self.num_steps(cursor, world_size=world_size, batch_size=batch_size) * batch_size
        order = EpochOrder(
            self._groups,
            seed=self.seed,
            epoch=cursor.epoch,
            shuffle_rows=self.shuffle_rows,
            shuffle_block=self.shuffle_block,
        )
        return order, Cursor(cursor.epoch, cursor.share(rank=rank, world_size=world_size)).first(num_rows)

    def blocks_in_file_order(
        self, intervals: Sequence[Interval], *, batch_size: int, columns: Sequence[str] | None = None
    ) -> Generator[RowBlock]:
        """Rows at some positions in the order of the files; the last block may be short."""
        order = EpochOrder(self._groups, seed=self.seed, epoch=0, shuffle_rows=None)
        return self._blocks(order, intervals, batch_size, columns)

    def _blocks(
        self, order: EpochOrder, intervals: Sequence[Interval], batch_size: int, columns: Sequence[str] | None
    ) -> Generator[RowBlock]:
        waiting: list[RowBlock] = []
        num_waiting = 0
        for window, rows, table in self._visited(order, intervals, columns):
            start = 0
            while start < len(rows):
                taken = rows[start : start + batch_size - num_waiting]
                is_run = len(taken) == batch_size and bool((np.diff(taken) == 1).all())
                # A run needs no copy; what waits for the next window must not keep this one in memory.
                part = table.slice(int(taken[0]), batch_size) if is_run else table.take(pa.array(taken))
                waiting.append(RowBlock(part, ((window, taken),)))
                start += len(taken)
                num_waiting += len(taken)
                if num_waiting == batch_size:
                    yield joined(waiting)
                    waiting, num_waiting = [], 0
            del table  # so that only the next window is in memory while the one after it is read
        if waiting:
            yield joined(waiting)

    def _visited(
        self, order: EpochOrder, intervals: Sequence[Interval], columns: Sequence[str] | None
    ) -> Generator[tuple[Window, NDArray[np.int64], pa.Table]]:
        """Windows in turn, the next one being read meanwhile."""
        names = tuple(self.arrow_schema.names if columns is None else columns)
        keep = len(order.windows) == 1
        visits = ((order.windows[window], rows) for window, rows in order.visits(intervals))
        visit = next(visits, None)
        if visit is None:
            return
        with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as executor:
            future = executor.submit(self._window, visit[0], names, keep)
            while visit is not None:
                following = next(visits, None)
                table = future.result()
                if following is not None:
                    future = executor.submit(self._window, following[0], names, keep)
                yield *visit, table
                del table
                visit = following

    def _window(self, window: Window, columns: tuple[str, ...], keep: bool) -> pa.Table:
        key = (window, columns)
        if self._kept is not None and self._kept[0] == key:
            return self._kept[1]
        schema = pa.schema([self.arrow_schema.field(column) for column in columns])
        tables = [
            self._files[file].read([group.index for group in groups], schema)
            for file, groups in groupby(window, key=lambda group: group.file)
        ]
        table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
        if keep:
            self._kept = (key, table)
        return table

    def _verified(self, file: DataFile) -> DataFile:
        # As stored: a value that another file's type cannot hold is no damage.
        verified, reasons = file.verified(file.select(self.arrow_schema.names))
        self.skipped += reasons
        return verified


def _row_groups(files: Sequence[DataFile]) -> Iterator[RowGroup]:
    for number, file in enumerate(files):
        first_row = 0
        for index, num_rows in enumerate(file.group_rows):
            if num_rows > 0 and index not in file.bad_groups:
                yield RowGroup(file=number, index=index, first_row=first_row, num_rows=num_rows)
            first_row += num_rows
