"""DataConfig and BatchLoader: from a stream of raw rows to batches, encoded ahead."""

# B rows per batch, W ranks

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import torch
from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from recmoe.config import Config
from recmoe.data.block_encoder import BlockEncoder
from recmoe.data.csv_config import CsvConfig
from recmoe.data.encoded_rows import EncodedRows, gathered, pieces
from recmoe.data.files import find_files
from recmoe.data.in_order import mapped_in_order
from recmoe.data.open_files import settled
from recmoe.data.order import Cursor, Interval
from recmoe.data.parquet import ParquetStream
from recmoe.data.prefetch import Prefetch
from recmoe.data.row_block import RowBlock
from recmoe.errors import DataError
from recmoe.features.batch import Batch
from recmoe.features.encoder import FeatureEncoder

CPU = torch.device("cpu")

Item = tuple[Batch, pa.Table | None]
"""A batch, and the raw rows it was made of where they were read."""


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Split = Literal["train", "validation", "test"]
Paths = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class DataConfig(Config):
    """Where the rows are. Each split is one or several files, folders or globs of Parquet, CSV and JSON lines."""

    train: Annotated[Paths, Field(min_length=1)]
    """Rows to learn from."""
    validation: Paths = ()
    """Rows for early stopping and the choice of the best checkpoint; may be left out."""
    test: Paths = ()
    """Rows for the final report; may be left out."""
    shuffle_rows: PositiveInt = 262_144
    """Rows shuffled together, and held in memory twice."""
    shuffle_block: PositiveInt | None = None
    """Neighbouring rows of a file that shuffling leaves together: several lists' rows for tasks of kind ranking, which
    learn from the rows of a list that one batch holds. None by default."""
    on_error: Literal["fail", "skip"] = "fail"
    """Whether damaged files and rows stop the run, or are found at its start, left out and counted."""
    cache_dir: str | None = None
    """Folder for CSV and JSON files converted to Parquet and for encoded rows; beside the run by default."""
    csv: CsvConfig = CsvConfig()
    """How CSV files are written; what is left out is recognised from the training files, for all splits."""
    encoded_cache: Literal["auto", "on", "off"] = "auto"
    """Whether rows are encoded once, before training, and kept on disk; auto does so where every row is read
    at least once and the disk has room."""
    memory_gb: PositiveFloat = 4.0
    """GB that learning vocabularies and statistics may take, over all processes; ids beyond it go to disk."""
    leak_auc: Annotated[float, Field(gt=0.5, le=1.0)] = 0.95
    """AUC from which a feature that alone predicts a task is warned of, before training and by ``data check``."""
    allow_leaks: tuple[str, ...] = ()
    """Features that are known before the event, however well they predict it: not warned of."""

    def cache_folder(self, default: Path) -> Path:
        """Where what is made of the files is kept."""
        return default if self.cache_dir is None else Path(self.cache_dir).expanduser()

    def build(
        self,
        split: Split,
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
            shuffle_block=self.shuffle_block or 1,
            on_error=self.on_error,
            cache_dir=self.cache_folder(cache_dir),
            csv=self._settled_csv(),
            columns=columns,
        )

    def _settled_csv(self) -> CsvConfig:
        """What the training files show, where they are there: another split is read like them."""
        try:
            return settled(find_files(self.train), self.csv)
        except DataError:
            # Whoever opens them is told; a split that is there can be read without them.
            return self.csv


class BatchLoader:
    """Delivers the rows of a stream as batches, made ``num_prefetch`` ahead on a background thread.

    Rows that were encoded before are gathered from there. Of others, the columns that the encoder reads
    are read from the files and encoded.

    Args:
        stream: raw rows.
        encoder: turns them into batches.
        batch_size: rows per batch and rank.
        rank: of this process.
        world_size: number of ranks.
        device: where batches are delivered.
        num_prefetch: batches that may wait.
        num_threads: threads that encode.
        encoded: the rows of the stream as the encoder has encoded them.

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
        num_threads: int = 1,
        encoded: EncodedRows | None = None,
    ) -> None:
        assert batch_size > 0
        assert 0 <= rank < world_size
        assert encoded is None or encoded.num_rows == stream.num_rows
        self.stream = stream
        self.encoder = encoder
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.device = device
        self.num_prefetch = num_prefetch
        self.num_threads = num_threads
        self.encoded = encoded
        self.wait_s = 0.0
        """Seconds that the consumer has waited for data so far."""
        stream.require(encoder.columns())

    def epoch(self, cursor: Cursor) -> Generator[Batch]:
        """Training batches of this rank from a cursor on, all of ``batch_size`` rows.

        Raises:
            DataError, SchemaError: from the files or the encoder, with the name of the file.
        """
        with closing(self._prefetched(self._epoch(cursor))) as batches:
            for batch, _ in batches:
                yield batch.to(self.device)

    def _epoch(self, cursor: Cursor) -> Generator[Item]:
        if self.encoded is None:
            columns = self.encoder.columns()
            return self._read(
                self.stream.blocks(
                    cursor, rank=self.rank, world_size=self.world_size, batch_size=self.batch_size, columns=columns
                )
            )
        windows = self.stream.windows(cursor, rank=self.rank, world_size=self.world_size, batch_size=self.batch_size)
        return ((batch, None) for batch in gathered(self.encoded, windows, batch_size=self.batch_size))

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
        self.stream.require(extra_columns)
        start, stop = self.stream.file_order_share(rank=self.rank, world_size=self.world_size)
        num_longest = -(-self.stream.num_rows // self.world_size)
        last = max(stop - 1, 0)
        padding = [(last, last + 1)] * (num_longest - (stop - start))
        num_left = stop - start
        with closing(self._prefetched(self._all_rows([(start, stop), *padding], tuple(extra_columns)))) as batches:
            for batch, table in batches:
                num_real = min(num_left, batch.num_rows)
                num_left -= num_real
                extra = table.select(extra_columns).slice(0, num_real) if extra_columns and table else None
                yield batch.to(self.device), num_real, extra

    def _all_rows(self, intervals: Sequence[Interval], extra: tuple[str, ...]) -> Generator[Item]:
        if self.encoded is None:
            columns = tuple(dict.fromkeys((*self.encoder.columns(), *extra)))
            blocks = self.stream.blocks_in_file_order(intervals, batch_size=self.batch_size, columns=columns)
            yield from self._read(blocks)
            return
        batches = gathered(self.encoded, pieces(intervals, self.batch_size), batch_size=self.batch_size)
        if not extra:
            yield from ((batch, None) for batch in batches)
            return
        blocks = self.stream.blocks_in_file_order(intervals, batch_size=self.batch_size, columns=extra)
        with closing(blocks):
            yield from ((batch, block.table) for batch, block in zip(batches, blocks, strict=True))

    def _read(self, blocks: Generator[RowBlock]) -> Generator[Item]:
        """Batches encoded from the files, each with the rows it was made of."""
        encoder = BlockEncoder(self.encoder, self.stream.files)
        with closing(blocks), closing(mapped_in_order(blocks, encoder.encode, num_threads=self.num_threads)) as encoded:
            for block, batch in encoded:
                yield batch, block.table

    def _prefetched(self, batches: Generator[Item]) -> Generator[Item]:
        return Prefetch(self._pinned(batches), num_items=self.num_prefetch, on_wait=self._waited).items()

    def _pinned(self, batches: Generator[Item]) -> Generator[Item]:
        with closing(batches):
            for batch, table in batches:
                yield batch.pin_memory() if self.device.type == "cuda" else batch, table

    def _waited(self, seconds: float) -> None:
        self.wait_s += seconds
