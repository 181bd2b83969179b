"""learn_encoder(), check_rows(), keep_rows(): what training reads, read before it; errors name file and row."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from recmoe.data.encoded_cache import EncodedCache
from recmoe.data.encoded_rows import EncodedRows
from recmoe.data.loader import BatchLoader
from recmoe.data.parquet import ParquetStream
from recmoe.errors import DataError, SchemaError
from recmoe.experiment import ExperimentConfig
from recmoe.features.batch import Batch
from recmoe.features.encoder import FeatureEncoder
from recmoe.machine import Machine
from recmoe.runs.row_progress import RowProgress

CHUNK_ROWS = 65_536
"""Rows held at once while everything is read in the order of the files."""


def learn_encoder(config: ExperimentConfig, stream: ParquetStream) -> FeatureEncoder:
    """Vocabularies and statistics of the training split, in one pass.

    Raises:
        DataError, SchemaError: a row or a column is wrong; names the file.
    """
    chunks = stream.chunks(batch_size=CHUNK_ROWS)
    try:
        return FeatureEncoder.fit(config.inputs, chunks, config.task_set().label_columns)
    except (DataError, SchemaError) as error:
        raise _located(error, stream) from error


def check_rows(stream: ParquetStream, encoder: FeatureEncoder) -> None:
    """Encode every row: a wrong one at the end of a split must not be found after hours of training.

    Raises:
        DataError, SchemaError: as training would find it, with file and row.
    """
    for _ in _batches(stream, encoder):
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


def _batches(stream: ParquetStream, encoder: FeatureEncoder) -> Iterator[Batch]:
    num_cores = max(1, int(Machine.read(Path.cwd()).usable_cores))
    num_threads = min(num_cores, -(-stream.num_rows // CHUNK_ROWS))
    loader = BatchLoader(stream, encoder, batch_size=CHUNK_ROWS, num_threads=num_threads)
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
