"""sample_rows: a bounded sample of a split, from all its parts, in two halves."""

# N rows of the sample

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.data.parquet import ParquetStream

SAMPLE_ROWS = 40_000
NUM_RUNS = 32
"""Runs of neighbouring rows that make the sample: no more row groups have to be read."""


def sample_rows(
    stream: ParquetStream, columns: Sequence[str], *, max_rows: int = SAMPLE_ROWS
) -> tuple[pa.Table, NDArray[np.bool_]]:
    """Runs of rows from all parts of a split; all rows where they are not more than ``max_rows``.

    Returns:
        rows: in the order of the files.
        is_second_N: which half a row belongs to. The halves take turns run by run, so that both see all times, and
            rows of one list are seldom in both.

    Raises:
        DataError: a file cannot be read.
    """
    assert max_rows >= NUM_RUNS
    num_rows = stream.num_rows
    starts = [run * num_rows // NUM_RUNS for run in range(NUM_RUNS + 1)]
    longest = max_rows // NUM_RUNS if num_rows > max_rows else num_rows
    runs = [(start, min(stop, start + longest)) for start, stop in pairwise(starts) if start < stop]
    blocks = stream.blocks_in_file_order(runs, batch_size=max_rows, columns=columns)
    rows = pa.concat_tables([block.table for block in blocks]).unify_dictionaries().combine_chunks()
    lengths = [stop - start for start, stop in runs]
    return rows, np.repeat(np.arange(len(runs)) % 2 == 1, lengths)
