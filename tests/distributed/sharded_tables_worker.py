"""One of several real processes over gloo: trains, saves and resumes sharded tables; started by the test.

Arguments: scenario, rank, world size, folder, sharding and optimizer as JSON.
"""

import json
import resource
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from recmoe.embeddings.logical import copy_into, dense_parameters, dense_state, logical_tables
from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import TablesConfig
from recmoe.errors import RecmoeError
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SequenceSpec, SparseKey, TableSpec
from recmoe.sequence import MeanHistoryConfig
from recmoe.training.checkpoint import CheckpointStore
from recmoe.training.optimizers import ConstantSchedule
from recmoe.training.step import Pipelining, Update, make_stepper

LAYOUT = InputLayout(
    tables=(
        TableSpec("user.id", 50, 4, "sum", ("user.id",)),
        TableSpec("tags", 20, 8, "mean", ("query", "tags")),
        TableSpec("type", 20, 4, "sum", ("type",)),
    ),
    sparse=(
        SparseKey("user.id", "user.id", "user", "user.id", 4),
        SparseKey("query", "query", "user", "tags", 8),
        SparseKey("tags", "tags", "item", "tags", 8),
        SparseKey("type", "type", "item", "type", 4),
    ),
    dense=(),
)
HISTORY = InputLayout(
    tables=(
        LAYOUT.tables[0],
        TableSpec("tags", 20, 8, "mean", ("history#tags", "query", "tags")),
        TableSpec("type", 20, 4, "sum", ("history#type", "type")),
    ),
    sparse=(
        LAYOUT.sparse[0],
        SparseKey("history#tags", "history", "user", "tags", 8, is_list=True, is_sequence=True),
        *(replace(key, is_list=True) for key in LAYOUT.sparse[1:3]),
        SparseKey("history#type", "history", "user", "type", 4, is_list=True, is_sequence=True),
        replace(LAYOUT.sparse[3], is_list=True),
    ),
    dense=(),
    sequences=(
        SequenceSpec(
            "history", "user", ("history#tags", "history#type"), 3, has_ages=False, encoder=MeanHistoryConfig()
        ),
    ),
)
"""The same keys, and a history over two of their tables."""
ROWS = 16
"""Rows per step of all ranks together."""


class Model(nn.Module):
    def __init__(self, tables: nn.Module, dropout: float) -> None:
        super().__init__()
        self.tables = tables
        self.tower = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 1))

    def forward(self, batch: Batch) -> Tensor:
        found = self.tables.look_up(batch)
        loss: Tensor = nn.functional.softplus(self.tower(found.pooled_BP)).mean()
        # The number of entries differs between the ranks, that of rows does not.
        squares = [entries_ND.add(0.1).square().sum() for entries_ND in found.entries.values()]
        return loss + sum(squares) / batch.num_rows


class Run:
    """A model with its optimizers and its store."""

    def __init__(
        self,
        root: Path,
        values: dict[str, Any],
        *,
        rank: int,
        world_size: int,
        dropout: float = 0.0,
        is_async: bool = False,
    ) -> None:
        self.rank, self.world_size = rank, world_size
        self.layout = HISTORY if values.get("history") else LAYOUT
        config = TablesConfig.model_validate({key: value for key, value in values.items() if key != "history"})
        torch.manual_seed(0)
        model = Model(config.build(layout=self.layout, seed=1), dropout)
        torch.manual_seed(100 + rank)
        self.placed = place(model, config=config, device=torch.device("cpu"))
        self.dense = torch.optim.AdamW([p for _, p in dense_parameters(self.placed.model)], fused=True)
        self.store = CheckpointStore(
            root,
            model=self.placed.model,
            dense_optimizer=self.dense,
            table_optimizer=self.placed.table_optimizer,
            fingerprint="f" * 64,
            is_async=is_async,
        )

    def train(self, *steps: int) -> None:
        for step in steps:
            self.placed.table_optimizer.scale_lr(1.0 / (step + 1))
            self.dense.zero_grad()
            self.placed.model(self.share_of(step)).backward()
            self.dense.step()
            self.placed.table_optimizer.step()

    def step_through(self, steps: Iterable[int], pipelining: Pipelining) -> None:
        """The same steps, by the training loop's own stepper."""
        update = Update(
            dense_optimizer=self.dense,
            table_optimizer=self.placed.table_optimizer,
            lr=self.dense.param_groups[0]["lr"],
            schedule=ConstantSchedule(),
        )
        stepper = make_stepper(
            self.placed.model,
            losses=self._losses,
            prepare=lambda batch, _: batch,
            update=update,
            pipelining=pipelining,
            device=torch.device("cpu"),
        )
        batches = (self.share_of(step) for step in steps)
        for step in steps:
            stepper.step(batches, step=step, num_steps=4)
        stepper.stop()

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        loss = self.placed.model(batch)
        return loss, loss.detach()[None]

    def share_of(self, step: int) -> Batch:
        return share_of(step, self.rank, self.world_size, num_keys=len(self.layout.sparse))

    def weights(self) -> dict[str, Tensor]:
        both = {**dict(logical_tables(self.placed.model)), **dense_state(self.placed.model)}
        return {name: tensor.clone() for name, tensor in both.items()}


def share_of(step: int, rank: int, world_size: int, *, num_keys: int) -> Batch:
    """A rank's rows of the batch of a step, which is the same for every world size."""
    generator = torch.Generator().manual_seed(step)
    lengths_KB = torch.randint(0, 4, (num_keys, ROWS), generator=generator, dtype=torch.int32)
    # One user per row, so that there are ids to be made distinct.
    lengths_KB[0] = 1
    values = torch.randint(0, 20, (int(lengths_KB.sum()),), generator=generator)
    bags = values.split(lengths_KB.reshape(-1).tolist())
    size = ROWS // world_size
    mine = [bags[key * ROWS + row] for key in range(num_keys) for row in range(rank * size, (rank + 1) * size)]
    return Batch(
        torch.zeros(size, 0), lengths_KB[:, rank * size : (rank + 1) * size], torch.cat(mine), torch.zeros(size, 0)
    )


def train_and_save(root: Path, values: dict[str, Any], *, rank: int, world_size: int) -> None:
    """Two steps, a checkpoint, two more steps; rank 0 leaves the weights and the plan in the folder."""
    run = Run(root / "checkpoints", values, rank=rank, world_size=world_size)
    run.train(0, 1)
    run.store.save(2, {"step": 2})
    run.train(2, 3)
    weights = run.weights()
    plain = Model(TablesConfig(backend="plain").build(layout=run.layout, seed=9), 0.0) if rank == 0 else None
    copy_into(plain, run.placed.model)
    if plain is not None:
        assert all(torch.equal(w, weights[name]) for name, w in logical_tables(plain))
        torch.save(weights, root / "weights.pt")
        (root / "plan.json").write_text(json.dumps(run.placed.plan))


def train_each(root: Path, values: dict[str, Any], *, rank: int, world_size: int) -> None:
    """Four steps of every config under ``configs``, plain or pipelined; rank 0 leaves weights and plans."""
    found = []
    for number, config in enumerate(values["configs"]):
        pipeline = config.pop("pipeline", "off")
        run = Run(root / f"checkpoints-{number}", {"backend": "torchrec", **config}, rank=rank, world_size=world_size)
        run.step_through(range(4), pipeline)
        found.append((run.weights(), run.placed.plan))
    if rank == 0:
        torch.save(found, root / "found.pt")


def resume(root: Path, values: dict[str, Any], *, rank: int, world_size: int) -> None:
    """With dropout: an unbroken run that saves beside its third step equals one resumed from its checkpoint."""
    run = Run(root / "checkpoints", values, rank=rank, world_size=world_size, dropout=0.5, is_async=True)
    run.train(0, 1)
    run.store.save(2, {"step": 2})
    run.train(2, 3)
    run.store.finish()
    resumed = Run(root / "checkpoints", values, rank=rank, world_size=world_size, dropout=0.5)
    state = resumed.store.load(resumed.store.latest() or 0)
    resumed.train(state["step"], state["step"] + 1)
    weights, again = run.weights(), resumed.weights()
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items()), rank


def fail(root: Path, values: dict[str, Any], *, rank: int, world_size: int) -> None:
    """What is wrong on the last rank alone, and a placement that is refused: every rank says why."""
    errors = []
    try:
        Run(
            root / "checkpoints",
            {**values, "sharding": {"tags": {"kernel": "fused_uvm"}}},
            rank=rank,
            world_size=world_size,
        )
    except RecmoeError as error:
        errors.append(str(error))
    run = Run(root / "checkpoints", values, rank=rank, world_size=world_size)
    run.store.save(1, {})
    beside = Run(root / "checkpoints", values, rank=rank, world_size=world_size, is_async=True)
    elsewhere = Run(root / f"disk-{rank}", values, rank=rank, world_size=world_size)
    try:
        elsewhere.store.latest()
    except RecmoeError as error:
        errors.append(str(error))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if rank == world_size - 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    for store in (run.store, beside.store):
        try:
            store.save(2, {})
            store.finish()
        except RecmoeError as error:
            errors.append(str(error))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    damaged = root / "checkpoints" / "step-00000001" / f"rng-{world_size - 1}.json"
    if rank == 0:
        damaged.write_text("")
    dist.barrier()
    try:
        run.store.load(1)
    except RecmoeError as error:
        errors.append(str(error))
    assert run.store.latest() is None
    (root / f"errors-{rank}.json").write_text(json.dumps(errors))


def main() -> None:
    scenario, rank, world_size, root = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    dist.init_process_group(
        "gloo",
        init_method=f"file://{root}/rendezvous-{scenario}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=60),
    )
    torch.set_num_threads(1)
    action = {"train": train_and_save, "resume": resume, "each": train_each, "fail": fail}[scenario]
    action(root, json.loads(sys.argv[5]), rank=rank, world_size=world_size)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
