"""Two processes that each see half of a batch merge gradients as one that sees all of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, multiprocessing, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from recmoe.balancing.fork import Fork
from recmoe.balancing.rules.imtl_g import IMTLGConfig
from recmoe.balancing.weightings.dwa import DWAWeighting
from recmoe.balancing.weightings.famo import FAMOWeighting
from recmoe.balancing.weightings.gradnorm import GradNormWeighting
from recmoe.embeddings.logical import dense_parameters, dense_state, logical_tables
from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import TablesConfig
from recmoe.features.batch import Batch
from recmoe.features.layout import DenseColumn, InputLayout, SparseKey, TableSpec
from recmoe.model import ModelConfig, build_training_model
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.training.optimizers import ConstantSchedule
from recmoe.training.step import Update, make_stepper

NUM_STEPS, NUM_ROWS = 4, 8
WEIGHTINGS = ("gradnorm", "dwa", "famo")


class Model(nn.Module):
    """A shared layer, three heads whose gradients conflict, and a weighting."""

    def __init__(self, weighting: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        fork = IMTLGConfig().build(num_tasks=3)
        assert fork is not None
        self.fork: Fork = fork
        self.bottom = nn.Linear(4, 5)
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(3))
        self.weighting: nn.Module
        if weighting == "dwa":
            self.weighting = DWAWeighting(weights=[1.0] * 3, steps=1, temperature=0.5)
        elif weighting == "famo":
            self.weighting = FAMOWeighting(weights=[1.0] * 3, lr=0.5, weight_decay=0.0)
        else:
            gradnorm = GradNormWeighting(weights=[1.0] * 3, alpha=1.0, lr=0.1)
            self.fork.listen(gradnorm.observe)
            self.weighting = gradnorm

    def forward(self, x_BD: Tensor) -> Tensor:
        copies = self.fork([torch.tanh(self.bottom(x_BD))])
        losses = [
            (head(h_BH)[:, 0] - x_BD[:, task]).square().mean()
            for task, (head, (h_BH,)) in enumerate(zip(self.heads, copies, strict=True))
        ]
        loss: Tensor = self.weighting(torch.stack(losses))
        return loss


def trained(model: nn.Module, *, rank: int, world_size: int) -> dict[str, Tensor]:
    """Weights and states after some steps on this process's part of every batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(NUM_STEPS):
        x_BD = torch.randn(NUM_ROWS, 4, generator=generator)
        optimizer.zero_grad()
        model(x_BD.chunk(world_size)[rank]).backward()
        optimizer.step()
    return {name.removeprefix("module."): value.clone() for name, value in model.state_dict().items()}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for weighting in WEIGHTINGS:
        model = Model(weighting)
        found = trained(DistributedDataParallel(model), rank=rank, world_size=2)
        torch.save((found, model.fork.gram_TT, model.fork.weights_T), f"{folder}/{weighting}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.cluster
def test_two_processes_with_half_a_batch_each_are_one_with_the_whole(tmp_path: Path) -> None:
    models = {weighting: Model(weighting) for weighting in WEIGHTINGS}
    expected = {weighting: trained(model, rank=0, world_size=1) for weighting, model in models.items()}

    multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=2)

    for weighting, model in models.items():
        for rank in range(2):
            found, gram_TT, weights_T = torch.load(tmp_path / f"{weighting}-{rank}.pt")
            torch.testing.assert_close(found, expected[weighting], equal_nan=True, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(gram_TT, model.fork.gram_TT, rtol=1e-4, atol=1e-7)
            torch.testing.assert_close(weights_T, model.fork.weights_T, rtol=1e-3, atol=1e-4)


LAYOUT = InputLayout(
    tables=(TableSpec("user", 20, 4, "sum", ("user",)), TableSpec("item", 30, 4, "sum", ("item",))),
    sparse=(SparseKey("user", "user", "user", "user", 4), SparseKey("item", "item", "item", "item", 4)),
    dense=(DenseColumn("price", "price", "item", "value"),),
)
BALANCED: dict[str, Any] = {
    "architecture": {"kind": "mmoe", "num_experts": 3, "expert_hidden": [8]},
    "towers": {"hidden": []},
    "balancing": {"kind": "upgrad"},
    "weighting": {"kind": "famo", "lr": 0.2},
    "unknown_share": 0.0,
}


def batch_of(step: int, *, rank: int, world_size: int) -> Batch:
    """This process's part of the rows of a step; what the tasks want of a row differs."""
    generator = torch.Generator().manual_seed(step)
    ids_KB = torch.randint(0, 20, (2, NUM_ROWS), generator=generator)
    price_B1 = torch.randn(NUM_ROWS, 1, generator=generator)
    labels_BL = torch.cat([(ids_KB[:1].t() < 10) == (price_B1 > 0), ids_KB[:1].t() >= 8], dim=1).float()
    rows = slice(rank * NUM_ROWS // world_size, (rank + 1) * NUM_ROWS // world_size)
    return Batch(
        dense_BF=price_B1[rows],
        lengths_KB=torch.ones(2, NUM_ROWS // world_size, dtype=torch.int32),
        values=ids_KB[:, rows].flatten(),
        labels_BL=labels_BL[rows],
    )


def stepped(backend: str, *, rank: int, world_size: int) -> tuple[dict[str, Tensor], list[float]]:
    """Tables and weights of a real model after some steps, and the weights of the gradients in each."""
    task = TypeAdapter[TaskConfig](TaskConfig)
    tasks = TaskSet({name: task.validate_python({"kind": "binary", "label": name}) for name in ("click", "buy")})
    tables = TablesConfig.model_validate({"backend": backend, "optimizer": {"kind": "sgd", "lr": 2.0}})
    model = build_training_model(
        layout=LAYOUT,
        tasks=tasks,
        config=ModelConfig.model_validate(BALANCED),
        tables=lambda layout: tables.build(layout=layout, seed=1),
    )
    placed = place(model, config=tables, device=torch.device("cpu"))
    update = Update(
        dense_optimizer=torch.optim.SGD([p for _, p in dense_parameters(placed.model)], lr=0.5),
        table_optimizer=placed.table_optimizer,
        lr=0.5,
        schedule=ConstantSchedule(),
    )
    stepper = make_stepper(
        placed.model,
        losses=placed.model,
        prepare=model.prepare,
        update=update,
        pipelining="on" if backend == "torchrec" else "off",
        device=torch.device("cpu"),
    )
    batches = (batch_of(step, rank=rank, world_size=world_size) for step in range(NUM_STEPS + 2))
    assert model.fork is not None
    weights = []
    for step in range(NUM_STEPS):
        stepper.step(batches, step=step, num_steps=NUM_STEPS)
        weights += model.fork.weights_T.tolist()
    stepper.stop()
    found = {**{name: weight.clone() for name, weight in logical_tables(placed.model)}, **dense_state(placed.model)}
    return found, weights


def work_on_shards(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(stepped("torchrec", rank=rank, world_size=2), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.cluster
def test_pipelined_steps_on_sharded_tables_are_plain_steps_of_one_process(tmp_path: Path) -> None:
    pytest.importorskip("torchrec")

    expected, weights = stepped("plain", rank=0, world_size=1)
    multiprocessing.spawn(work_on_shards, args=(str(tmp_path),), nprocs=2)

    for rank in range(2):
        found, weights_there = torch.load(tmp_path / f"{rank}.pt")
        assert weights_there == pytest.approx(weights, abs=1e-3)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    # The tasks were in conflict, or the rule would have had nothing to do.
    assert max(weights) > 1.01
