"""PlannedShard: a piece of a table, and the rank that the plan gives it to."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PlannedShard:
    """Rows and columns of a table on one rank; a replicated table is whole on every rank."""

    table: str
    rank: int
    row: int
    """The first."""
    column: int
    """The first."""
    num_rows: int
    width: int
    sharding: str
    """Kind of sharding, or "whole" where there is one process with plain tables."""
    kernel: str = "fused"
    """torchrec's name of what computes it, which says whether it lies in a GPU's memory."""
