"""One of several real processes over gloo: trains models whose experts are divided; started by the test.

Arguments: scenario, rank, world size, folder, values as JSON.
"""

import json
import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch import distributed as dist

from recmoe.embeddings.logical import dense_parameters, dense_state, logical_tables
from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import TablesConfig
from recmoe.errors import RecmoeError
from recmoe.features.batch import Batch
from recmoe.features.layout import DenseColumn, InputLayout, SparseKey, TableSpec
from recmoe.model import ModelConfig, build_training_model
from recmoe.products import autocast
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.training.checkpoint import CheckpointStore
from recmoe.training.clipping import ClipByPart, Clipping, make_clipping
from recmoe.training.divided_experts import divide_experts, travel_curves, whole_experts
from recmoe.training.optimizers import ConstantSchedule
from recmoe.training.step import Update, make_stepper

LAYOUT = InputLayout(
    tables=(TableSpec("user", 20, 4, "sum", ("user",)),),
    sparse=(SparseKey("user", "user", "user", "user", 4),),
    dense=(DenseColumn("price", "price", "item", "value"), DenseColumn("age", "age", "user", "value")),
)
ROWS = 24
"""Rows per step of all workers together."""
CPU = torch.device("cpu")


class Run:
    """A model with its optimizers and its store, stepped by the training loop's own stepper."""

    def __init__(
        self,
        root: Path,
        values: dict[str, Any],
        *,
        rank: int,
        world_size: int,
        experts: str = "over_workers",
        backend: str = "torchrec",
    ) -> None:
        self.rank, self.world_size = rank, world_size
        self.precision = values.get("precision", "fp32")
        task = TypeAdapter[TaskConfig](TaskConfig)
        tasks = TaskSet({name: task.validate_python({"kind": "binary", "label": name}) for name in ("click", "buy")})
        tables = TablesConfig.model_validate({"backend": backend, "optimizer": {"kind": "adagrad", "lr": 0.1}})
        model = build_training_model(
            layout=LAYOUT,
            tasks=tasks,
            config=ModelConfig.model_validate({"unknown_share": 0.0, **values["model"]}),
            tables=lambda layout: tables.build(layout=layout, seed=1),
            rank=rank,
        )
        divide_experts(model, experts)
        self.placed = place(model, config=tables, device=CPU)
        self.dense = torch.optim.AdamW([p for _, p in dense_parameters(self.placed.model)], lr=0.01, fused=True)
        clip = values.get("clip_norm")
        self.clipping: Clipping = make_clipping(
            ClipByPart.model_validate(clip) if isinstance(clip, dict) else clip,
            model=self.placed.model,
            optimizer=self.dense,
        )
        self.stepper = make_stepper(
            self.placed.model,
            losses=self._losses,
            prepare=lambda batch, _: batch,
            update=Update(self.dense, self.placed.table_optimizer, 0.01, ConstantSchedule(), self.clipping),
            pipelining=values.get("pipeline", "off") if backend == "torchrec" else "off",
            device=CPU,
        )
        self.store = CheckpointStore(
            root,
            model=self.placed.model,
            dense_optimizer=self.dense,
            table_optimizer=self.placed.table_optimizer,
            fingerprint="f" * 64,
        )

    def train(self, steps: Iterable[int]) -> None:
        steps = list(steps)
        batches = (batch_of(step, self.rank, self.world_size) for step in steps)
        for step in steps:
            self.stepper.step(batches, step=step, num_steps=4)
        self.stepper.stop()

    def weights(self) -> dict[str, Tensor]:
        """Of the whole model, by logical names, and the norms of the last gradient."""
        with whole_experts(self.placed.model):
            both = {**dict(logical_tables(self.placed.model)), **dense_state(self.placed.model)}
            norms = {name: torch.tensor(norm) for name, norm in self.clipping.curves().items()}
            return {name: tensor.clone() for name, tensor in both.items()} | norms

    def num_own_floats(self) -> int:
        """Of experts that this worker holds."""
        return sum(p.numel() for name, p in dense_parameters(self.placed.model) if ".experts." in name)

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        with autocast(self.precision, CPU):
            return self.placed.model(batch)


def batch_of(step: int, rank: int, world_size: int) -> Batch:
    """A worker's rows of the batch of a step, which is the same for every world size."""
    generator = torch.Generator().manual_seed(step)
    ids_B = torch.randint(0, 20, (ROWS,), generator=generator)
    dense_BF = torch.rand(ROWS, 2, generator=generator) * 3
    labels_BL = torch.stack([ids_B < 4, dense_BF[:, 0] > 2], dim=1).float()
    rows = slice(rank * ROWS // world_size, (rank + 1) * ROWS // world_size)
    return Batch(dense_BF[rows], torch.ones(1, len(ids_B[rows]), dtype=torch.int32), ids_B[rows], labels_BL[rows])


def train_each(root: Path, values: dict[str, Any], *, rank: int, world_size: int) -> None:
    """Two steps of every config, a checkpoint, two more steps; each leaves weights, and what a worker holds."""
    found = {}
    for name, config in values.items():
        run = Run(root / name / "checkpoints", config, rank=rank, world_size=world_size)
        run.train([0, 1])
        run.store.save(2, {"step": 2})
        run.train([2, 3])
        found[name] = (run.weights(), run.num_own_floats(), travel_curves(run.placed.model, train_s=1.0))
    torch.save(found, root / f"found-{rank}.pt")


def resume_each(root: Path, values: dict[str, Any], *, rank: int, world_size: int) -> None:
    """The last two steps, from the checkpoints that others have left."""
    found = {}
    for name, config in values.items():
        run = Run(root / name / "checkpoints", config, rank=rank, world_size=world_size)
        assert run.store.load(run.store.latest() or 0) == {"step": 2}
        run.train([2, 3])
        found[name] = run.weights()
    torch.save(found, root / f"resumed-{rank}.pt")


def fail_each(root: Path, values: dict[str, Any], *, rank: int, world_size: int) -> None:
    """What every config is refused with."""
    errors = {}
    for name, config in values.items():
        try:
            Run(root, config, rank=rank, world_size=world_size)
        except RecmoeError as error:
            errors[name] = f"{type(error).__name__}: {error}"
    (root / f"errors-{rank}.json").write_text(json.dumps(errors))


def main() -> None:
    scenario, rank, world_size, root = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    dist.init_process_group(
        "gloo",
        init_method=f"file://{root}/rendezvous-{scenario}-{world_size}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=60),
    )
    torch.set_num_threads(1)
    action = {"train": train_each, "resume": resume_each, "fail": fail_each}[scenario]
    action(root, json.loads(sys.argv[5]), rank=rank, world_size=world_size)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
