"""BlockEncoder: raw rows that know where they came from → batches, and errors that name file and row."""

# B rows

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from recmoe.data.row_block import RowBlock
from recmoe.errors import DataError, SchemaError
from recmoe.features.batch import Batch
from recmoe.features.encoder import FeatureEncoder


class BlockEncoder:
    """``FeatureEncoder.encode`` of blocks of a stream's rows.

    Args:
        encoder: encodes the rows.
        files: of the stream, for errors.
    """

    def __init__(self, encoder: FeatureEncoder, files: Sequence[Path]) -> None:
        self._encoder = encoder
        self._file_paths = files

    def encode(self, block: RowBlock) -> Batch:
        """The rows of a block as a batch.

        Raises:
            DataError, SchemaError: what the encoder has to object, with the file and the row that cause it.
        """
        try:
            return self._encoder.encode(block.table)
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
            return type(error)(f"{self._file_paths[file]}: {error}")
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
        return type(error)(f"{self._file_paths[file]}, row {row} of the file: {message}")

    def _files(self, block: RowBlock) -> str:
        return ", ".join(sorted({str(self._file_paths[group.file]) for window, _ in block.origins for group in window}))

    def _problem(self, table: pa.Table) -> Exception | None:
        try:
            self._encoder.encode(table)
        except (DataError, SchemaError) as error:
            return error
        return None
