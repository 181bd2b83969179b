"""shard_loads(): what every piece of a table holds, and what a step asks of it."""

# N ranks of popularity computed one by one, S pieces of a table

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recmoe.embeddings.planned_shard import PlannedShard
from recmoe.planning.work import FLOAT_BYTES, ID_BYTES, LENGTH_BYTES, TableWork
from recmoe.planning.zipf import expected_distinct, share_between, shares_of_first

REPLICATED = "data_parallel"
NUM_SCATTERED = 4096
"""Most frequent rows that are dealt out one by one where the order of rows does not tell how frequent they are."""


@dataclass(frozen=True)
class ShardLoad:
    """One piece, with its part of the ids of all workers."""

    shard: PlannedShard
    num_keys: int
    state_width: float
    """Floats of optimizer state per row."""
    num_ids: float
    """Ids that it looks up in a step."""
    num_distinct: float
    """Rows that they touch."""
    num_vectors: float
    """Vectors that it pools, or adds its part to; or the ids, where nothing is pooled."""
    is_pooled: bool = True

    @property
    def weight_bytes(self) -> float:
        """Weights."""
        return float(FLOAT_BYTES * self.shard.num_rows * self.shard.width)

    @property
    def state_bytes(self) -> float:
        """Optimizer state, and the gradient of a replicated table, which is as large as the table."""
        gradient = self.weight_bytes if self.shard.sharding == REPLICATED else 0.0
        return FLOAT_BYTES * self.shard.num_rows * self.state_width + gradient

    @property
    def lookup_bytes(self) -> float:
        """Rows read, vectors written."""
        return FLOAT_BYTES * self.shard.width * (self.num_ids + self.num_vectors)

    @property
    def update_bytes(self) -> float:
        """Gradients of vectors read; touched rows and their state read and written, of a replicated table all."""
        gradients = FLOAT_BYTES * self.shard.width * self.num_vectors
        if self.shard.sharding == REPLICATED:
            return gradients + 2 * (2 * self.weight_bytes + self.state_bytes)
        return gradients + 2 * FLOAT_BYTES * (self.shard.width + self.state_width) * self.num_distinct

    @property
    def vector_bytes(self) -> float:
        """Pooled vectors, or parts of them, that leave it in the forward pass and whose gradients come back."""
        return FLOAT_BYTES * self.shard.width * self.num_vectors

    @property
    def id_bytes(self) -> float:
        """Ids and lengths that come to it."""
        return ID_BYTES * self.num_ids + LENGTH_BYTES * self.num_vectors


def shard_loads(
    shards: Sequence[PlannedShard],
    *,
    work: Mapping[str, TableWork],
    num_rows: Mapping[str, int],
    world_size: int,
    frequent_first: Collection[str],
    zipf: float,
) -> list[ShardLoad]:
    """Give every piece its part of a step's ids.

    Rows of a vocabulary stand in the order of their frequency, so its first piece gets most ids; where ids are
    hashed, or row numbers, the most frequent rows fall on the pieces by chance.

    Args:
        work: by table, of one worker's batch.
        num_rows: by table.
        frequent_first: tables in the order of frequency.
    """
    pieces: dict[str, set[tuple[int, int]]] = {}
    for shard in shards:
        pieces.setdefault(shard.table, set()).add((shard.row, shard.row + shard.num_rows))
    shares = {
        table: _shares(num_rows[table], sorted(ranges), is_sorted=table in frequent_first, zipf=zipf)
        for table, ranges in pieces.items()
    }
    loads = []
    for shard in shards:
        of_table = work[shard.table]
        num_workers = 1 if shard.sharding == REPLICATED else world_size
        place = (shard.row, shard.row + shard.num_rows)
        all_ids = num_workers * of_table.num_ids
        num_ids = all_ids * shares[shard.table][place]
        if shard.table in frequent_first:
            distinct = expected_distinct(num_rows[shard.table], all_ids, exponent=zipf, first=place[0], last=place[1])
        else:
            distinct = expected_distinct(num_rows[shard.table], all_ids, exponent=zipf)
            distinct *= shard.num_rows / num_rows[shard.table]
        loads.append(
            ShardLoad(
                shard=shard,
                num_keys=of_table.num_vectors // max(of_table.batch_size, 1),
                state_width=of_table.state_width * (shard.width / of_table.width if of_table.state_width > 1 else 1.0),
                num_ids=num_ids,
                num_distinct=distinct,
                num_vectors=float(num_workers * of_table.num_vectors) if of_table.is_pooled else num_ids,
                is_pooled=of_table.is_pooled,
            )
        )
    return loads


def _shares(
    num_rows: int, ranges: Sequence[tuple[int, int]], *, is_sorted: bool, zipf: float
) -> dict[tuple[int, int], float]:
    """Share of a table's ids by range of rows."""
    if len(ranges) == 1:
        return {ranges[0]: 1.0}
    if is_sorted:
        return {(first, last): share_between(num_rows, first, last, exponent=zipf) for first, last in ranges}
    top_N = shares_of_first(num_rows, NUM_SCATTERED, exponent=zipf)
    rows_N = np.random.default_rng(0).random(len(top_N)) * num_rows
    found = {}
    for first, last in ranges:
        even = (1.0 - float(top_N.sum())) * (last - first) / num_rows
        found[first, last] = even + float(top_N[(rows_N >= first) & (rows_N < last)].sum())
    return found
