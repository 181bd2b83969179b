"""place_tables(): which worker of a job that need not exist gets which piece of which table."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from recmoe.embeddings.hardware import Hardware
from recmoe.embeddings.planned_shard import PlannedShard
from recmoe.embeddings.tables import TablesConfig
from recmoe.errors import ShardingError
from recmoe.features.layout import InputLayout
from recmoe.planning.topology import GB, Topology

DEFAULT_MEMORY_BYTES_PER_S = 50e9
"""Of a CPU's memory, where no rates are given: only the planner's choices depend on it."""

NUM_TRIES = 8
"""Numbers of nodes that are tried before it is said that none would do."""


def place_tables(
    layout: InputLayout,
    *,
    config: TablesConfig,
    topology: Topology,
    batch_size: int,
    ids_per_row: Mapping[str, float],
) -> list[PlannedShard]:
    """Place every table with the planner that training uses.

    Raises:
        ShardingError: a placement that the device cannot do, or tables that do not fit, with what would help.
    """
    problems = config.launch_problems(layout=layout, device_type=topology.device, world_size=topology.world_size)
    told = "; ".join(f"tables.{path}: {message}" for path, message in problems)
    if told:
        raise ShardingError(told)
    if config.resolved_backend() == "plain":
        shards = [PlannedShard(spec.name, 0, 0, 0, spec.num_rows, spec.width, "whole") for spec in layout.tables]
        if _num_bytes(layout, config) > topology.table_bytes:
            raise ShardingError(_misfit(layout, config, topology, "; install torchrec, which spreads them"))
        return shards

    def plan(nodes: int) -> list[PlannedShard]:
        return _planned(layout, config, topology.model_copy(update={"nodes": nodes}), batch_size, ids_per_row)

    try:
        return plan(topology.nodes)
    except ShardingError as error:
        for nodes in _more_nodes(_num_bytes(layout, config), topology):
            try:
                plan(nodes)
            except ShardingError:
                continue
            devices = nodes * topology.devices_per_node
            remedy = f"; {devices} devices ({nodes} nodes of {topology.devices_per_node}) would do"
            raise ShardingError(_misfit(layout, config, topology, remedy)) from error
        remedy = ", and more devices do not help; split the largest table (tables.sharding), or hash its ids"
        raise ShardingError(_misfit(layout, config, topology, remedy)) from error


def _planned(
    layout: InputLayout,
    config: TablesConfig,
    topology: Topology,
    batch_size: int,
    ids_per_row: Mapping[str, float],
) -> list[PlannedShard]:
    from recmoe.embeddings.fused import TorchrecTables
    from recmoe.embeddings.sharding import make_plan, planned_shards

    model = nn.Sequential(TorchrecTables(layout))
    host_gb = topology.host_memory_gb or topology.memory_gb * topology.devices_per_node
    rates = topology.known_rates
    plan = make_plan(
        model,
        config=config,
        device=torch.device(topology.device),
        world_size=topology.world_size,
        local_world_size=topology.devices_per_node,
        hardware=Hardware(
            device_bytes=int(topology.memory_gb * GB),
            host_bytes=int(host_gb * GB / topology.devices_per_node),
            memory_bytes_per_s=rates.random_row_bytes_per_s if rates else DEFAULT_MEMORY_BYTES_PER_S,
            intra_node_bytes_per_s=topology.intra_node_gb_per_s * GB,
            inter_node_bytes_per_s=topology.inter_node_gb_per_s * GB,
            batch_size=batch_size,
            ids_per_row=ids_per_row,
            reserved_share=topology.reserved_share,
        ),
    )
    return planned_shards(plan, model)


def _more_nodes(num_bytes: float, topology: Topology) -> Sequence[int]:
    """From the smallest number of nodes that could hold the bytes, in growing steps."""
    least = max(topology.nodes + 1, math.ceil(num_bytes / topology.table_bytes / topology.devices_per_node))
    steps = [0, 1, 2, 3, *(math.ceil(least * share) for share in (0.25, 0.5, 1.0, 3.0))]
    return sorted({least + step for step in steps})[:NUM_TRIES]


def _num_bytes(layout: InputLayout, config: TablesConfig) -> float:
    """Weights and optimizer state of all tables."""
    num_bytes = 0
    for spec in layout.tables:
        state = sum(map(math.prod, config.optimizer.slots(spec.num_rows, spec.width).values()))
        num_bytes += 4 * (spec.num_rows * spec.width + state)
    return float(num_bytes)


def _misfit(layout: InputLayout, config: TablesConfig, topology: Topology, remedy: str) -> str:
    largest = max(layout.tables, key=lambda spec: spec.num_rows * spec.width)
    num = topology.world_size
    return (
        f"the tables need {_num_bytes(layout, config) / GB:,.1f} GB with optimizer state, and {num} "
        f"device{'s' if num > 1 else ''} of {topology.memory_gb:g} GB hold{'s' if num == 1 else ''} "
        f"{num * topology.table_bytes / GB:,.1f} GB beside the reserve of {topology.reserved_share:.0%}; the largest "
        f"is {largest.name} with {largest.num_rows:,} rows of {largest.width}{remedy}; or use smaller widths, fewer "
        "rows, or hashing"
    )
