"""Initial values of tables: a function of seed and table name, of no device, back end or world size."""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from recmoe.features.layout import TableSpec

ROWS_PER_BLOCK = 65_536
"""Rows drawn from one generator, so that a shard of a large table is filled without the whole of it."""


def fill_initial(target_RC: Tensor, *, spec: TableSpec, seed: int, std: float, row: int = 0, column: int = 0) -> None:
    """Fill a table, or the part of it that begins at (row, column): vectors from N(0, std²), the linear part with 0.

    A table without memory, on the meta device, stays as it is: there torch would load its compiler to draw nothing.
    """
    if target_RC.is_meta:
        return
    last_row, last_column = row + target_RC.shape[0], column + target_RC.shape[1]
    target_RC[:, max(0, spec.vector_width - column) :] = 0.0
    if column >= spec.vector_width:
        return
    for start, block_NW in _blocks(spec, seed=seed, first=row, last=last_row):
        top, bottom = max(row, start), min(last_row, start + block_NW.shape[0])
        part = block_NW[top - start : bottom - start, column:last_column]
        target_RC[top - row : bottom - row, : part.shape[1]].copy_(part.mul(std))


def _blocks(spec: TableSpec, *, seed: int, first: int, last: int) -> Iterator[tuple[int, Tensor]]:
    """The blocks of vectors that hold rows first … last - 1, each with its first row."""
    for start in range(first // ROWS_PER_BLOCK * ROWS_PER_BLOCK, last, ROWS_PER_BLOCK):
        digest = hashlib.sha256(f"{seed}/{spec.name}/{start}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        num_rows = min(ROWS_PER_BLOCK, spec.num_rows - start)
        yield start, torch.randn(num_rows, spec.vector_width, generator=generator)
