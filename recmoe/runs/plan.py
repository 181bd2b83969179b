"""plan_tables(): where every table would go, before any worker is started."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recmoe.embeddings.logical import dense_parameters
from recmoe.errors import ShardingError
from recmoe.experiment import ExperimentConfig
from recmoe.model import build_model
from recmoe.runs.encoder import learn_encoder


@dataclass(frozen=True)
class TablePlan:
    """Placement of the tables, and the size of the rest."""

    device: str
    backend: str
    tables: list[dict[str, Any]]
    """Per table: table, rows, width, sharding, ranks, bytes."""
    num_dense_parameters: int
    """Replicated on every worker."""

    @property
    def num_bytes(self) -> int:
        """Weights of all tables; optimizer state comes on top."""
        return sum(row["bytes"] for row in self.tables)


def plan_tables(config: ExperimentConfig, *, num_workers: int, cache_dir: Path) -> TablePlan:
    """Learn the vocabularies from the training split, and place the tables they need.

    Args:
        num_workers: processes of the job; they need not exist.
        cache_dir: where CSV files are converted, unless the config says otherwise.

    Raises:
        DataError, SchemaError: the training split cannot be read.
        ShardingError: a placement that the device cannot do, or tables that do not fit.
    """
    stream = config.data.build("train", seed=config.seed, cache_dir=cache_dir)
    tasks = config.task_set()
    encoder = learn_encoder(config, stream, scratch=cache_dir / "scratch")
    asked = config.training.device
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked)
    layout = encoder.layout
    backend = config.tables.resolved_backend()
    problems = list(
        config.tables.launch_problems(tables=layout.tables, device_type=device.type, world_size=num_workers)
    )
    if problems:
        raise ShardingError("; ".join(f"tables.{path}: {message}" for path, message in problems))
    model = build_model(
        layout=layout, tasks=tasks, config=config.model, tables=config.tables.build(layout=layout, seed=config.seed)
    )
    num_dense = sum(parameter.numel() for _, parameter in dense_parameters(model))
    if backend == "plain":
        rows = [
            {"table": spec.name, "rows": spec.num_rows, "width": spec.width, "sharding": "whole", "ranks": [0],
             "bytes": spec.num_rows * spec.width * 4}
            for spec in layout.tables
        ]  # fmt: skip
        return TablePlan(device.type, backend, rows, num_dense)
    from recmoe.embeddings.sharding import describe_plan, make_plan

    plan = make_plan(model, config=config.tables, device=device, world_size=num_workers, local_world_size=num_workers)
    return TablePlan(device.type, backend, describe_plan(plan, model), num_dense)
