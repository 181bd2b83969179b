"""RowBlock: rows read from several files that still know where they came from."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.data.order import RowGroup


@dataclass(frozen=True)
class RowBlock:
    """Some rows, and for each run of them the window and the rows in it that they were taken from."""

    table: pa.Table
    origins: tuple[tuple[tuple[RowGroup, ...], NDArray[np.int64]], ...]

    def origin(self, row: int) -> tuple[int, int]:
        """File (index in the stream) and row in that file of one row."""
        for window, rows in self.origins:
            if row < len(rows):
                return _in_file(window, int(rows[row]))
            row -= len(rows)
        raise AssertionError("row is beyond the block")


def joined(blocks: list[RowBlock]) -> RowBlock:
    """Blocks one after the other, each column in one piece."""
    if len(blocks) == 1:
        return blocks[0]
    table = pa.concat_tables([block.table for block in blocks]).unify_dictionaries().combine_chunks()
    return RowBlock(table, tuple(origin for block in blocks for origin in block.origins))


def _in_file(window: tuple[RowGroup, ...], row: int) -> tuple[int, int]:
    for group in window:
        if row < group.num_rows:
            return group.file, group.first_row + row
        row -= group.num_rows
    raise AssertionError("row is beyond the window")
