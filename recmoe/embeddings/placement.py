"""place(model): the model on its device, its tables sharded or whole, and their optimizer."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import distributed as dist
from torch import nn

from recmoe.embeddings.logical import find_tables
from recmoe.embeddings.sparse_optimizer import SlotState, SparseOptimizer, SparseOptimizerConfig
from recmoe.embeddings.tables import PlainTables, TablesConfig
from recmoe.errors import ShardingError


class TableOptimizer(Protocol):
    """The sparse optimizer of either back end."""

    rule: SparseOptimizerConfig
    lr: float

    def set_lr(self, lr: float) -> None:
        """Step size from the next backward on."""
        ...

    def scale_lr(self, share: float) -> None:
        """Step size as a share of the configured one, such as a schedule's factor."""
        ...

    def step(self) -> None:
        """After every backward: apply what the backward has not applied already, and drop gradients."""
        ...

    def zero_grad(self) -> None:
        """Drop gradients without applying them, where there are any."""
        ...

    def state(self) -> dict[str, SlotState]:
        """Live state by table and slot."""
        ...

    def after_load(self) -> None:
        """Called when the tensors of ``state()`` were filled from a checkpoint."""
        ...


@dataclass(frozen=True)
class PlacedModel:
    """A model ready to train."""

    model: nn.Module
    table_optimizer: TableOptimizer
    plan: list[dict[str, Any]]
    """Where every table went: table, rows, width, sharding, ranks, bytes."""


def place(
    model: nn.Module, *, config: TablesConfig, device: torch.device, find_unused_parameters: bool = False
) -> PlacedModel:
    """Move a model to its device; shard its tables where they are torchrec's. Collective.

    Raises:
        ShardingError: in every process, for what the device cannot do or what does not fit.
    """
    tables = find_tables(model)[1]
    if not isinstance(tables, PlainTables):
        from recmoe.embeddings.sharding import describe_plan, shard

        parallel, optimizer, plan = shard(
            model, config=config, device=device, find_unused_parameters=find_unused_parameters
        )
        return PlacedModel(parallel, optimizer, describe_plan(plan, parallel))
    specs = tables.layout.tables
    world_size = dist.get_world_size() if dist.is_initialized() else 1
    problems = list(config.launch_problems(layout=tables.layout, device_type=device.type, world_size=world_size))
    if problems:
        raise ShardingError("; ".join(f"tables.{path}: {message}" for path, message in problems))
    model.to(device)
    weights = {spec.name: tables.weight(spec.name) for spec in specs}
    rows = [
        {
            "table": spec.name,
            "rows": spec.num_rows,
            "width": spec.width,
            "sharding": "whole",
            "ranks": [0],
            "bytes": spec.num_rows * spec.width * 4,
        }
        for spec in specs
    ]
    return PlacedModel(model, SparseOptimizer(weights, config.optimizer), rows)
