"""learn_encoder(), check_rows(), keep_rows(): what training reads, read before it; errors name file and row."""

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from recmoe.data.encoded_cache import EncodedCache
from recmoe.data.encoded_rows import EncodedRows
from recmoe.data.loader import BatchLoader
from recmoe.data.order import Interval
from recmoe.data.parquet import ParquetStream
from recmoe.errors import DataError, SchemaError
from recmoe.experiment import ExperimentConfig
from recmoe.features.batch import Batch
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.fit import Learner
from recmoe.features.number_learner import PIECE_ROWS
from recmoe.machine import Machine
from recmoe.runs.folder import emptied
from recmoe.runs.row_progress import RowProgress

CHUNK_ROWS = 65_536
"""Rows held at once while everything is read in the order of the files."""
COUNTS_SHARE = 0.2
"""Of the memory allowed, what the counts of ids take at rest; the rest is for reading, merging and writing."""

assert PIECE_ROWS % CHUNK_ROWS == 0


class Reading(Protocol):
    """Who reads all rows before a run: this process or many, with the same result."""

    def learn(
        self, config: ExperimentConfig, stream: ParquetStream, *, scratch: Path, base: FeatureEncoder | None = None
    ) -> FeatureEncoder:
        """Vocabularies and statistics of the training split; see ``learn_encoder``."""
        ...

    def check(self, stream: ParquetStream, encoder: FeatureEncoder, *, scratch: Path) -> None:
        """Encode every row; see ``check_rows``."""
        ...


class ReadHere:
    """Reading in this process."""

    def learn(
        self, config: ExperimentConfig, stream: ParquetStream, *, scratch: Path, base: FeatureEncoder | None = None
    ) -> FeatureEncoder:
        return learn_encoder(config, stream, scratch=scratch, base=base)

    def check(self, stream: ParquetStream, encoder: FeatureEncoder, *, scratch: Path) -> None:  # noqa: ARG002
        check_rows(stream, encoder)


def learn_encoder(
    config: ExperimentConfig, stream: ParquetStream, *, scratch: Path, base: FeatureEncoder | None = None
) -> FeatureEncoder:
    """Vocabularies and statistics of the training split, in one pass, within ``data.memory_gb``.

    Args:
        scratch: a folder of this call's own for ids that exceed the memory; removed at the end.
        base: the encoder of an earlier model, which grows: what it knows stays as it is.

    Raises:
        DataError, SchemaError: a row or a column is wrong; names the file.
    """
    with emptied(scratch):
        learner = learn_rows(config, stream, (0, stream.num_rows), scratch=scratch, num_bytes=memory_bytes(config))
        return encoder_of(config, stream, learner, base=base)


def memory_bytes(config: ExperimentConfig) -> int:
    """Bytes that learning may take."""
    return int(config.data.memory_gb * 1e9)


def learn_rows(
    config: ExperimentConfig, stream: ParquetStream, rows: Interval, *, scratch: Path, num_bytes: int
) -> Learner:
    """What some rows teach.

    Args:
        rows: their positions in the order of the files; whole pieces of ``PIECE_ROWS``, but for the last one.
        scratch: where ids that exceed the memory go.
        num_bytes: memory allowed.

    Raises:
        DataError, SchemaError: a row or a column is wrong; names the file.
    """
    assert rows[0] % PIECE_ROWS == 0
    learner = Learner(config.inputs, config.label_columns(), folder=scratch, max_bytes=int(num_bytes * COUNTS_SHARE))
    stream.require([column for column in learner.columns if column in stream.problems])
    # Where a column is missing, all are read: the error tells what there is.
    is_whole = set(learner.columns) <= set(stream.arrow_schema.names)
    blocks = stream.blocks_in_file_order([rows], batch_size=CHUNK_ROWS, columns=learner.columns if is_whole else None)
    try:
        for block in blocks:
            learner.add(block.table, first_row=rows[0] + learner.num_rows)
    except (DataError, SchemaError) as error:
        raise _located(error, stream) from error
    return learner


def encoder_of(
    config: ExperimentConfig,
    stream: ParquetStream,
    learner: Learner,
    candidates: Mapping[str, pa.Table] | None = None,
    *,
    base: FeatureEncoder | None = None,
) -> FeatureEncoder:
    """The encoder of all rows.

    Args:
        learner: what all rows of the stream have taught.
        candidates: by table, the ids that may get a row, where they have been found elsewhere.
        base: the encoder of an earlier model, which grows.

    Raises:
        DataError: a numeric feature has no numbers.
    """
    try:
        state = learner.finish(candidates, base=None if base is None else base.state)
        return FeatureEncoder(config.inputs, config.label_columns(), state)
    except (DataError, SchemaError) as error:
        raise _located(error, stream) from error


def check_rows(stream: ParquetStream, encoder: FeatureEncoder, *, rank: int = 0, world_size: int = 1) -> None:
    """Encode every row of a rank: a wrong one at the end of a split must not be found after hours of training.

    Raises:
        DataError, SchemaError: as training would find it, with file and row.
    """
    for _ in _batches(stream, encoder, rank=rank, world_size=world_size):
        pass


def keep_rows(
    stream: ParquetStream, encoder: FeatureEncoder, cache: EncodedCache, *, split: str, is_quiet: bool
) -> EncodedRows:
    """Encode every row as ``check_rows`` does, and keep what comes out; what is there already is not made again.

    Args:
        split: the stream's name, for the progress.
        is_quiet: show no progress.

    Raises:
        DataError, SchemaError: as training would find it, with file and row; or the disk is full.
    """
    progress = RowProgress(f"encoding {split}", stream.num_rows, is_quiet=is_quiet)

    def batches() -> Iterator[Batch]:
        for batch in _batches(stream, encoder):
            yield batch
            progress.advance(batch.num_rows)

    try:
        return cache.ensure(stream, batches)
    finally:
        progress.close()


def _batches(stream: ParquetStream, encoder: FeatureEncoder, *, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
    # The other ranks have the other cores.
    num_cores = 1 if world_size > 1 else max(1, int(Machine.read(Path.cwd()).usable_cores))
    num_threads = min(num_cores, -(-stream.num_rows // CHUNK_ROWS))
    loader = BatchLoader(
        stream, encoder, batch_size=CHUNK_ROWS, rank=rank, world_size=world_size, num_threads=num_threads
    )
    with closing(loader.all_rows()) as batches:
        for batch, _, _ in batches:
            yield batch


def _located(error: DataError | SchemaError, stream: ParquetStream) -> DataError | SchemaError:
    """The same error with the name of its file; a row of the whole stream becomes a row of the file."""
    message = str(error)
    if any(message.startswith(str(file)) for file in stream.files):
        return error
    found = re.search(r"\bin row (\d+)", message)
    if found is None:
        # Columns are the same in all files.
        others = f" and {len(stream.files) - 1} more" if len(stream.files) > 1 else ""
        return type(error)(f"{stream.files[0]}{others}: {message}")
    file, row = stream.file_row(int(found[1]))
    message = f"{message[: found.start()]}in row {row}{message[found.end() :]}"
    return type(error)(f"{file}, row {row} of the file: {message}")
