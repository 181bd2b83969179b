"""Hardware: what the planner of tables must know of machines that it cannot ask, for they need not exist."""

from collections.abc import Mapping
from dataclasses import dataclass, field

RESERVED_SHARE = 0.2
"""Share of the memory that the plan leaves to the dense part and to batches."""


@dataclass(frozen=True)
class Hardware:
    """One device of a job, its links, and what a step asks of it."""

    device_bytes: int
    """Memory of a device, or of a worker on a CPU."""
    host_bytes: int
    """Memory of the host per worker."""
    memory_bytes_per_s: float
    """Bytes read from the device's memory."""
    intra_node_bytes_per_s: float
    """What a device sends to devices of its node."""
    inter_node_bytes_per_s: float
    """What a device sends to devices of other nodes."""
    batch_size: int
    """Rows per step and worker."""
    ids_per_row: Mapping[str, float] = field(default_factory=dict)
    """By sparse key; 1 where a key is not named."""
    reserved_share: float = RESERVED_SHARE
    """Of a device's memory."""
