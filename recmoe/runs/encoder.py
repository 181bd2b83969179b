"""learn_encoder() and check_rows(): what training reads, read once before it, with errors that name file and row."""

import re

from recmoe.data.loader import BatchLoader
from recmoe.data.parquet import ParquetStream
from recmoe.errors import DataError, SchemaError
from recmoe.experiment import ExperimentConfig
from recmoe.features.encoder import FeatureEncoder

CHUNK_ROWS = 65_536
"""Rows held at once while everything is read in the order of the files."""


def learn_encoder(
    config: ExperimentConfig, stream: ParquetStream, *, base: FeatureEncoder | None = None
) -> FeatureEncoder:
    """Vocabularies and statistics of the training split, in one pass.

    Args:
        base: the encoder of an earlier model, which grows.

    Raises:
        DataError, SchemaError: a row or a column is wrong; names the file.
    """
    chunks = stream.chunks(batch_size=CHUNK_ROWS)
    try:
        return FeatureEncoder.fit(config.inputs, chunks, config.task_set().label_columns, base=base)
    except (DataError, SchemaError) as error:
        raise _located(error, stream) from error


def check_rows(stream: ParquetStream, encoder: FeatureEncoder) -> None:
    """Encode every row: a wrong one at the end of a split must not be found after hours of training.

    Raises:
        DataError, SchemaError: as training would find it, with file and row.
    """
    for _ in BatchLoader(stream, encoder, batch_size=CHUNK_ROWS).all_rows():
        pass


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
