"""DataConfig and BatchLoader: from a stream of raw rows to batches, encoded ahead."""

# B rows per batch, W ranks

import re
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import torch
from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from recmoe.config import Config
from recmoe.data.order import Cursor
from recmoe.data.parquet import ParquetStream
from recmoe.data.prefetch import Prefetch
from recmoe.data.row_block import RowBlock
from recmoe.errors import DataError, SchemaError
from recmoe.features.batch import Batch
from recmoe.features.encoder import FeatureEncoder

CPU = torch.device("cpu")


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Paths = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class DataConfig(Config):
    """Where the rows are. Each split is one or several files, folders or globs of Parquet and CSV."""

    train: Annotated[Paths, Field(min_length=1)]
    """Rows to learn from."""
    validation: Paths = ()
    """Rows for early stopping and the choice of the best checkpoint; may be left out."""
    test: Paths = ()
    """Rows for the final report; may be left out."""
    shuffle_rows: PositiveInt = 262_144
    """Rows shuffled together, and held in memory twice."""
    on_error: Literal["fail", "skip"] = "fail"
    """Whether damaged files and rows stop the run, or are found at its start, left out and counted."""
    cache_dir: str | None = None
    """Folder in which CSV files are converted to Parquet once; beside the run by default."""
    memory_gb: PositiveFloat = 4.0
    """GB that learning vocabularies and statistics may take, over all processes; ids beyond it go to disk."""

    def build(
        self,
        split: Literal["train", "validation", "test"],
        *,
        seed: int,
        cache_dir: Path,
        columns: Sequence[str] | None = None,
    ) -> ParquetStream:
        """Open a split; only training rows are shuffled.

        Args:
            split: which paths.
            seed: of the order of rows.
            cache_dir: used where the config gives none.
            columns: the columns to read; all by default.
        """
        paths: tuple[str, ...] = {"train": self.train, "validation": self.validation, "test": self.test}[split]
        if not paths:
            raise DataError(f"data.{split} names no files; give a file, a folder or a glob")
        return ParquetStream(
            paths,
            seed=seed,
            shuffle_rows=self.shuffle_rows if split == "train" else None,
            on_error=self.on_error,
            cache_dir=cache_dir if self.cache_dir is None else Path(self.cache_dir).expanduser(),
            columns=columns,
        )


class BatchLoader:
    """Encodes the rows of a stream on a background thread, ``num_prefetch`` batches ahead.

    Only the columns that the encoder reads are read from the files.

    Args:
        stream: raw rows.
        encoder: turns them into batches.
        batch_size: rows per batch and rank.
        rank: of this process.
        world_size: number of ranks.
        device: where batches are delivered.
        num_prefetch: batches that may wait.

    Raises:
        SchemaError: the files lack a column that the encoder reads.
    """

    def __init__(
        self,
        stream: ParquetStream,
        encoder: FeatureEncoder,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device = CPU,
        num_prefetch: int = 2,
    ) -> None:
        assert batch_size > 0
        assert 0 <= rank < world_size
        self.stream = stream
        self.encoder = encoder
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.device = device
        self.num_prefetch = num_prefetch
        self.wait_s = 0.0
        """Seconds that the consumer has waited for data so far."""
        stream.require(encoder.columns())

    def epoch(self, cursor: Cursor) -> Generator[Batch]:
        """Training batches of this rank from a cursor on, all of ``batch_size`` rows.

        Raises:
            DataError, SchemaError: from the files or the encoder, with the name of the file.
        """
        blocks = self.stream.blocks(
            cursor,
            rank=self.rank,
            world_size=self.world_size,
            batch_size=self.batch_size,
            columns=self.encoder.columns(),
        )
        with closing(self._prefetched(blocks)) as encoded:
            for _, batch in encoded:
                yield batch.to(self.device)

    def all_rows(self, *, extra_columns: Sequence[str] = ()) -> Generator[tuple[Batch, int, pa.Table | None]]:
        """Every row once over all ranks, in the order of the files.

        All ranks yield as many batches of the same sizes: a rank that is a row short repeats its last one.

        Args:
            extra_columns: raw columns to hand out beside the batches.

        Yields:
            batch: B rows, fewer in the last one.
            num_real: rows of the batch that are not padding; they come first.
            extra: the extra columns of the real rows; None where none were asked for.
        """
        extra = tuple(extra_columns)
        columns = tuple(dict.fromkeys((*self.encoder.columns(), *extra)))
        self.stream.require(columns)
        start, stop = self.stream.file_order_share(rank=self.rank, world_size=self.world_size)
        num_longest = -(-self.stream.num_rows // self.world_size)
        last = max(stop - 1, 0)
        padding = [(last, last + 1)] * (num_longest - (stop - start))
        blocks = self.stream.blocks_in_file_order(
            [(start, stop), *padding], batch_size=self.batch_size, columns=columns
        )
        num_left = stop - start
        with closing(self._prefetched(blocks)) as encoded:
            for block, batch in encoded:
                num_real = min(num_left, batch.num_rows)
                num_left -= num_real
                raw = block.table.select(extra).slice(0, num_real) if extra else None
                yield batch.to(self.device), num_real, raw

    def _prefetched(self, blocks: Generator[RowBlock]) -> Generator[tuple[RowBlock, Batch]]:
        return Prefetch(self._encoded(blocks), num_items=self.num_prefetch, on_wait=self._waited).items()

    def _encoded(self, blocks: Generator[RowBlock]) -> Generator[tuple[RowBlock, Batch]]:
        with closing(blocks):
            for block in blocks:
                batch = self._encode(block)
                yield block, batch.pin_memory() if self.device.type == "cuda" else batch

    def _waited(self, seconds: float) -> None:
        self.wait_s += seconds

    def _encode(self, block: RowBlock) -> Batch:
        try:
            return self.encoder.encode(block.table)
        except (DataError, SchemaError) as error:
            raise self._located(block, error) from error
        except Exception as error:
            error.add_note(f"while encoding rows of {self._files(block)}")
            raise

    def _located(self, block: RowBlock, error: DataError | SchemaError) -> DataError | SchemaError:
        """The same error, with the file and the row that cause it."""
        if self._problem(block.table.slice(0, 0)) is not None:
            # Whatever the rows: the type of a column.
            file, _ = block.origin(0)
            return type(error)(f"{self.stream.files[file]}: {error}")
        low, high = 0, block.table.num_rows
        while high - low > 1:
            middle = (low + high) // 2
            if self._problem(block.table.slice(low, middle - low)) is not None:
                high = middle
            else:
                low = middle
        alone = self._problem(block.table.slice(low, 1))
        if alone is None:
            return type(error)(f"{self._files(block)}: {error}")
        file, row = block.origin(low)
        # To the encoder it is row 0 of a table of one row.
        message = re.sub(r"\bin row 0\b", f"in row {row}", str(alone))
        return type(error)(f"{self.stream.files[file]}, row {row} of the file: {message}")

    def _files(self, block: RowBlock) -> str:
        return ", ".join(
            sorted({str(self.stream.files[group.file]) for window, _ in block.origins for group in window})
        )

    def _problem(self, table: pa.Table) -> Exception | None:
        try:
            self.encoder.encode(table)
        except (DataError, SchemaError) as error:
            return error
        return None
