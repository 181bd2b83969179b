"""exchange(): what travels between the workers of a job in one step, and how long it takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recmoe.planning.loads import REPLICATED, ShardLoad
from recmoe.planning.topology import GB, Topology

SUMS_OVER_ALL = ("row_wise",)
SUMS_IN_NODE = ("table_row_wise", "grid_shard")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Exchange:
    """Seconds on the links, by what travels; one step waits for the busiest worker."""

    ids_s: float
    """Ids to the workers that hold their rows."""
    vectors_s: float
    """Pooled vectors back in the forward pass, and their gradients in the backward."""
    gradients_s: float
    """Sum of the gradients of the dense part and of replicated tables."""
    rows_s: float
    """Rows to the experts of other workers, what these make of them back, and the gradients of both."""
    vector_bytes: float
    """What the busiest worker sends of vectors and gradients in a step."""


class _Links:
    """Bytes that every worker sends inside its node and to other nodes."""

    def __init__(self, topology: Topology) -> None:
        self.nodes = topology.nodes
        self.per_node = topology.devices_per_node
        self.world_size = topology.world_size
        self.intra_R = np.zeros(self.world_size)
        self.inter_R = np.zeros(self.world_size)
        share = topology.efficiency.network
        self.intra_bytes_per_s = topology.intra_node_gb_per_s * GB * share
        self.inter_bytes_per_s = topology.inter_node_gb_per_s * GB * share

    def to_all(self, rank: int, num_bytes: float) -> None:
        """One worker sends, or receives, an even part of some bytes to each worker, itself included."""
        self.intra_R[rank] += num_bytes * (self.per_node - 1) / self.world_size
        self.inter_R[rank] += num_bytes * (self.world_size - self.per_node) / self.world_size

    def sum_over_all(self, num_bytes: float) -> None:
        """Everybody holds a part of everything, and gets the sum of his share: a ring over all, a rail per device."""
        self.intra_R += num_bytes * (self.per_node - 1) / self.per_node
        self.inter_R += num_bytes * (self.nodes - 1) / self.nodes / self.per_node

    def sum_in_node(self, rank: int, num_bytes: float) -> None:
        """The workers of a node sum their parts, then each sends an equal share of the result to the other nodes."""
        self.intra_R[rank] += num_bytes * (self.per_node - 1) / self.per_node
        self.inter_R[rank] += num_bytes / self.per_node * (self.nodes - 1) / self.nodes

    @property
    def seconds(self) -> float:
        """Of the busiest worker; both kinds of links work at once."""
        return float(
            np.maximum(self.intra_R / self.intra_bytes_per_s, self.inter_R / self.inter_bytes_per_s).max(initial=0.0)
        )

    @property
    def max_bytes(self) -> float:
        """Of the busiest worker."""
        return float((self.intra_R + self.inter_R).max(initial=0.0))


def exchange(
    loads: Sequence[ShardLoad], topology: Topology, *, num_dense_parameters: int, sent_bytes: float = 0.0
) -> Exchange:
    """Bytes over bandwidth, per worker.

    Whole tables and columns, and tables that sequences read: an all-to-all of vectors. Rows over all workers: a
    reduce-scatter of parts of the vectors of everybody's batch. Rows within a node: the same in the node, then an
    all-to-all between nodes. The backward sends as much the other way; ids come to where rows are; dense gradients are
    summed by a ring.

    Args:
        num_dense_parameters: those that every worker has.
        sent_bytes: of rows and gradients that a worker sends to experts of others.
    """
    ids, vectors, gradients, rows = (_Links(topology) for _ in range(4))
    seen_tables = set()
    for load in loads:
        kind, rank = load.shard.sharding, load.shard.rank
        if kind == REPLICATED:
            if load.shard.table not in seen_tables:
                gradients.sum_over_all(2 * load.weight_bytes)
        else:
            ids.to_all(rank, load.id_bytes)
            if kind in SUMS_IN_NODE:
                vectors.sum_in_node(rank, 2 * load.vector_bytes)
            elif kind not in SUMS_OVER_ALL or not load.is_pooled:
                vectors.to_all(rank, 2 * load.vector_bytes)
            elif load.shard.table not in seen_tables:
                vectors.sum_over_all(2 * load.vector_bytes)
        seen_tables.add(load.shard.table)
    gradients.sum_over_all(2 * 4.0 * num_dense_parameters)
    if sent_bytes:
        for rank in range(topology.world_size):
            # The part that stays with the worker itself is none of them.
            rows.to_all(rank, sent_bytes * topology.world_size / (topology.world_size - 1))
    return Exchange(
        ids_s=ids.seconds,
        vectors_s=vectors.seconds,
        gradients_s=gradients.seconds,
        rows_s=rows.seconds,
        vector_bytes=vectors.max_bytes,
    )
