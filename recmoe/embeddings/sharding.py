"""Sharding: topology, constraints, plan; shard(model) → DistributedModelParallel."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from torch import distributed as dist
from torch import nn

from recmoe.embeddings.fused import FusedOptimizer, TorchrecTables
from recmoe.embeddings.hardware import RESERVED_SHARE, Hardware
from recmoe.embeddings.logical import divided_parameters, find_tables
from recmoe.embeddings.planned_shard import PlannedShard
from recmoe.embeddings.sharder import make_sharders
from recmoe.embeddings.sharding_config import ShardingKind, TableShardingConfig
from recmoe.embeddings.tables import TablesConfig, member_name
from recmoe.errors import ShardingError

with warnings.catch_warnings():
    # fbgemm's CPU wheel warns of kernels that it does not have, torch of what it will drop.
    warnings.simplefilter("ignore")
    from torch.distributed.optim.apply_optimizer_in_backward import _apply_optimizer_in_backward
    from torchrec.distributed.model_parallel import DefaultDataParallelWrapper, DistributedModelParallel
    from torchrec.distributed.planner import EmbeddingShardingPlanner
    from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
    from torchrec.distributed.planner.types import (
        HardwareConfig,
        KernelConfig,
        ParameterConstraints,
        PlannerError,
        TopologyFactory,
        TrainerConfig,
    )
    from torchrec.distributed.types import CacheParams, ShardingPlan


def make_plan(
    model: nn.Module,
    *,
    config: TablesConfig,
    device: torch.device,
    world_size: int,
    local_world_size: int,
    hardware: Hardware | None = None,
) -> ShardingPlan:
    """Place every table of a model, for workers that need not exist yet.

    Args:
        hardware: of the workers; by default they have the memory of this machine.

    Raises:
        ShardingError: a placement that the device cannot do, or tables that do not fit.
    """
    tables = _torchrec_tables(model)
    _check(config, tables, device_type=device.type, world_size=world_size)
    memory_bytes = hardware.device_bytes if hardware else _memory_bytes(device, local_world_size)
    constraints = _constraints(config, tables, device_type=device.type, world_size=world_size)
    if hardware is not None:
        # The planner counts the optimizer's state by this attribute, and ids per row by constraint.
        for parameter in tables.parameters():
            parameter._optimizer_classes = [config.optimizer.fused()[0]]  # type: ignore[attr-defined]
        for spec in tables.layout.tables:
            constraints[member_name(spec.name)].pooling_factors = [
                hardware.ids_per_row.get(key, 1.0) for key in spec.keys
            ]
    try:
        with _quiet():
            planner = EmbeddingShardingPlanner(
                topology=TopologyFactory.create_topology(
                    TrainerConfig(world_size=world_size, local_world_size=local_world_size),
                    _hardware_config(hardware, device, local_world_size),
                    KernelConfig(compute_device=device.type, use_hardware_based_bandwidth=hardware is not None),
                ),
                batch_size=hardware.batch_size if hardware else None,
                constraints=constraints,
                storage_reservation=FixedPercentageStorageReservation(
                    percentage=hardware.reserved_share if hardware else RESERVED_SHARE
                ),
                debug=False,
            )
            return planner.plan(model, make_sharders(config, tables.layout, device_type=device.type))
    except PlannerError as error:
        num_bytes = sum(spec.num_rows * spec.width * 4 for spec in tables.layout.tables)
        largest = max(tables.layout.tables, key=lambda spec: spec.num_rows * spec.width)
        raise ShardingError(
            f"the tables ({num_bytes / 1e9:.1f} GB of weights, the largest is {largest.name} with "
            f"{largest.num_rows:,} rows of {largest.width}) do not fit {world_size} workers of "
            f"{memory_bytes / 1e9:.1f} GB each; use more workers, smaller widths or vocabularies, or hashing"
        ) from error


def shard(
    model: nn.Module, *, config: TablesConfig, device: torch.device, find_unused_parameters: bool = False
) -> tuple[DistributedModelParallel, FusedOptimizer, ShardingPlan]:
    """Plan, shard, initialise; collective over the processes of the default group, which may be one.

    Args:
        model: holds one ``TorchrecTables``; changed in place.
        find_unused_parameters: whether a step may leave dense parameters without a gradient.

    Raises:
        ShardingError: in every process, for what the device cannot do or what does not fit.
    """
    assert dist.is_initialized(), "sharded tables need a process group, of one process at least"
    plan = _agreed_plan(model, config=config, device=device)
    tables = _torchrec_tables(model)
    for parameter in tables.parameters():
        optimizer, arguments = config.optimizer.fused()
        _apply_optimizer_in_backward(optimizer, [parameter], arguments)
    with _quiet():
        parallel = DistributedModelParallel(
            model,
            device=device,
            plan=plan,
            sharders=make_sharders(config, tables.layout, device_type=device.type),
            data_parallel_wrapper=DefaultDataParallelWrapper(
                static_graph=False,
                find_unused_parameters=find_unused_parameters,
                # Each worker has a part of its own, of which there is nothing to average.
                params_to_ignore=[part for part, _ in divided_parameters(model).values() if part is not None],
            ),
        )
    if any(told.kind == "data_parallel" for told in config.sharding.values()):
        # fbgemm's CPU kernel for replicated tables; its gradient equals the plain back end's in a test.
        warnings.filterwarnings("ignore", message="fbgemm::dense_embedding_codegen_lookup_function")
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
    tables.fill_initial()
    return parallel, FusedOptimizer(tables, parallel.fused_optimizer, config.optimizer), plan


def describe_plan(plan: ShardingPlan, model: nn.Module) -> list[dict[str, Any]]:
    """Where every table went, as rows for JSON: table, rows, width, sharding, ranks, bytes of weights."""
    tables = _torchrec_tables(model)
    placed = {table: place for module in plan.plan.values() for table, place in module.items()}
    return [
        {
            "table": spec.name,
            "rows": spec.num_rows,
            "width": spec.width,
            "sharding": placed[member_name(spec.name)].sharding_type,
            "ranks": sorted(set(placed[member_name(spec.name)].ranks or [])),
            "bytes": spec.num_rows * spec.width * 4,
        }
        for spec in tables.layout.tables
    ]


def planned_shards(plan: ShardingPlan, model: nn.Module) -> list[PlannedShard]:
    """All pieces of all tables; a replicated table is whole on every rank."""
    tables = _torchrec_tables(model)
    placed = {table: place for module in plan.plan.values() for table, place in module.items()}
    shards = []
    for spec in tables.layout.tables:
        place = placed[member_name(spec.name)]
        kinds = (place.sharding_type, place.compute_kernel)
        if place.sharding_spec is None:
            shards += [
                PlannedShard(spec.name, rank, 0, 0, spec.num_rows, spec.width, *kinds) for rank in place.ranks or []
            ]
            continue
        shards += [
            PlannedShard(
                table=spec.name,
                rank=rank,
                row=piece.shard_offsets[0],
                column=piece.shard_offsets[1],
                num_rows=piece.shard_sizes[0],
                width=piece.shard_sizes[1],
                sharding=place.sharding_type,
                kernel=place.compute_kernel,
            )
            for rank, piece in zip(place.ranks or [], place.sharding_spec.shards, strict=True)
        ]
    return shards


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torchrec from warning, through the root logger too, of replicated tables and DDP's renamed arguments."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.disable(logging.NOTSET)


def _agreed_plan(model: nn.Module, *, config: TablesConfig, device: torch.device) -> ShardingPlan:
    """The plan of rank 0, or its error, in every process."""
    found: list[ShardingPlan | str | None] = [None]
    if dist.get_rank() == 0:
        world_size = dist.get_world_size()
        local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
        try:
            found = [
                make_plan(model, config=config, device=device, world_size=world_size, local_world_size=local_world_size)
            ]
        except ShardingError as error:
            found = [str(error)]
    dist.broadcast_object_list(found, src=0)
    if not isinstance(found[0], ShardingPlan):
        raise ShardingError(str(found[0]))
    return found[0]


def _check(config: TablesConfig, tables: TorchrecTables, *, device_type: str, world_size: int) -> None:
    problems = [
        *config.problems(),
        *config.launch_problems(layout=tables.layout, device_type=device_type, world_size=world_size),
    ]
    if problems:
        raise ShardingError("; ".join(f"tables.{path}: {message}" for path, message in problems))


def _constraints(
    config: TablesConfig, tables: TorchrecTables, *, device_type: str, world_size: int
) -> dict[str, ParameterConstraints]:
    # Left alone, the planner replicates small tables, and those lose the fused optimizer.
    usual: list[ShardingKind] = ["table_wise"] if device_type == "cpu" else ["table_wise", "row_wise"]
    constraints = {}
    for spec in tables.layout.tables:
        told = config.sharding.get(spec.name, TableShardingConfig())
        kinds = usual if told.kind is None else [told.kind]
        constraints[member_name(spec.name)] = ParameterConstraints(
            sharding_types=[str(kind) for kind in kinds],
            compute_kernels=["dense" if told.kind == "data_parallel" else told.kernel],
            # Columns are cut into one piece per worker where the width allows it.
            min_partition=max(4, -(-spec.width // world_size // 4) * 4),
            cache_params=None if told.cache_share is None else CacheParams(load_factor=told.cache_share),
        )
    return constraints


def _hardware_config(hardware: Hardware | None, device: torch.device, local_world_size: int) -> HardwareConfig:
    if hardware is None:
        return HardwareConfig(
            hbm_cap_bytes=_memory_bytes(device, local_world_size) if device.type == "cuda" else None,
            ddr_cap_bytes=_memory_bytes(torch.device("cpu"), local_world_size),
        )
    # The planner reserves of a GPU's memory only; its speeds are in bytes per millisecond.
    on_host = int(hardware.device_bytes * (1 - hardware.reserved_share))
    return HardwareConfig(
        hbm_cap_bytes=hardware.device_bytes if device.type == "cuda" else None,
        ddr_cap_bytes=on_host if device.type == "cpu" else hardware.host_bytes,
        intra_host_bw=hardware.intra_node_bytes_per_s / 1e3,
        inter_host_bw=hardware.inter_node_bytes_per_s / 1e3,
        hbm_mem_bw=hardware.memory_bytes_per_s / 1e3,
        ddr_mem_bw=hardware.memory_bytes_per_s / 1e3,
    )


def _memory_bytes(device: torch.device, local_world_size: int) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total) // local_world_size


def _torchrec_tables(model: nn.Module) -> TorchrecTables:
    tables = find_tables(model)[1]
    assert isinstance(tables, TorchrecTables)
    return tables
