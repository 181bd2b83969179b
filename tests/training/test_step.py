"""Steps with and without a pipeline are the same steps; what cannot be pipelined is told."""

import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from recmoe.embeddings.fused import BAGS
from recmoe.embeddings.logical import dense_parameters, dense_state, logical_tables
from recmoe.embeddings.placement import PlacedModel, place
from recmoe.embeddings.tables import PlainTables, TablesConfig
from recmoe.errors import TrainingError
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SparseKey, TableSpec
from recmoe.training.clipping import make_clipping
from recmoe.training.optimizers import LinearSchedule
from recmoe.training.runtime import start_runtime
from recmoe.training.step import PipelinedStepper, Pipelining, PlainStepper, Stepper, Update, make_stepper

CPU = torch.device("cpu")
CONFIG = TablesConfig(backend="torchrec")
LAYOUT = InputLayout(
    tables=(TableSpec("tag", 20, 4, "mean", ("query", "tags")), TableSpec("shop", 30, 8, "sum", ("shop",))),
    sparse=(
        SparseKey("query", "query", "user", "tag", 4),
        SparseKey("tags", "tags", "item", "tag", 4),
        SparseKey("shop", "shop", "item", "shop", 8),
    ),
    dense=(),
)


class Model(nn.Module):
    def __init__(self, tables: nn.Module) -> None:
        super().__init__()
        self.tables = tables
        torch.manual_seed(0)
        self.tower = nn.Linear(16, 1)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        loss = nn.functional.softplus(self.tower(self.tables(batch))).mean()
        return loss, loss.detach()[None]


class Job:
    """A model, its stepper, and what it has prepared: a fifth of the ids is hidden, others at every step."""

    def __init__(self, pipelining: Pipelining) -> None:
        start_runtime(device="cpu")
        self.placed = place(Model(CONFIG.build(layout=LAYOUT, seed=1)), config=CONFIG, device=CPU)
        self.prepared: list[int] = []
        """Steps for which a batch was."""
        self.stepper = stepper_of(self.placed, pipelining, self.prepare)

    def prepare(self, batch: Batch, step: int) -> Batch:
        self.prepared.append(step)
        return replace(batch, values=batch.values.masked_fill(batch.values % 5 == step % 5, 0))

    def losses(self, batches: Iterator[Batch], first: int, last: int) -> list[float]:
        return [float(self.stepper.step(batches, step=step, num_steps=8)) for step in range(first, last)]

    def weights(self) -> dict[str, Tensor]:
        both = {**dict(logical_tables(self.placed.model)), **dense_state(self.placed.model)}
        return {name: tensor.clone() for name, tensor in both.items()}


def stepper_of(placed: PlacedModel, pipelining: Pipelining, prepare: object = None) -> Stepper:
    dense = torch.optim.AdamW([parameter for _, parameter in dense_parameters(placed.model)], lr=0.01)
    update = Update(
        dense_optimizer=dense,
        table_optimizer=placed.table_optimizer,
        lr=0.01,
        schedule=LinearSchedule(),
        clipping=make_clipping(0.1, model=placed.model, optimizer=dense),
    )
    return make_stepper(
        placed.model,
        losses=placed.model,
        prepare=prepare if callable(prepare) else lambda batch, _: batch,
        update=update,
        pipelining=pipelining,
        device=CPU,
    )


def batches_of(first: int, last: int) -> Iterator[Batch]:
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        lengths_KB = torch.randint(0, 4, (3, 8), generator=generator, dtype=torch.int32)
        values = torch.randint(0, 20, (int(lengths_KB.sum()),), generator=generator)
        yield Batch(torch.zeros(8, 0), lengths_KB, values, torch.zeros(8, 0))


def test_pipelined_steps_equal_plain_ones_over_pauses_and_epochs() -> None:
    plain, pipelined = Job("off"), Job("on")
    probe = next(batches_of(9, 10))

    losses = {}
    for name, job in (("plain", plain), ("pipelined", pipelined)):
        first, second = batches_of(0, 5), batches_of(5, 8)
        losses[name] = job.losses(first, 0, 3)
        job.stepper.pause()
        with torch.no_grad():
            losses[name].append(float(job.placed.model(probe)[0]))
        losses[name] += job.losses(first, 3, 5)
        job.stepper.stop()
        losses[name] += job.losses(second, 5, 8)

    assert losses["pipelined"] == losses["plain"]
    assert pipelined.prepared == plain.prepared == list(range(8))
    expected = plain.weights()
    assert all(torch.equal(weight, expected[name]) for name, weight in pipelined.weights().items())


def test_batches_taken_ahead_are_dropped_at_a_stop() -> None:
    job = Job("on")
    batches = batches_of(0, 8)

    job.losses(batches, 0, 2)
    job.stepper.stop()

    assert job.prepared == [0, 1, 2, 3]
    assert len(list(batches)) == 4
    with torch.no_grad():
        assert float(job.placed.model(next(batches_of(0, 1)))[0]) > 0


def test_a_module_that_cannot_be_pipelined_is_named_and_the_loop_goes_on_plainly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain, pipelined = Job("off"), Job("on")
    other = place(Model(CONFIG.build(layout=LAYOUT, seed=2)), config=CONFIG, device=CPU)
    for job in (plain, pipelined):
        inner = job.placed.model.module
        assert isinstance(inner, nn.Module)
        inner.tower.add_module("sequences", other.model.module.tables.collections[BAGS])  # type: ignore[union-attr, operator, index]

    with caplog.at_level(logging.WARNING, logger="recmoe"):
        losses = [job.losses(batches_of(0, 5), 0, 5) for job in (plain, pipelined)]

    assert losses[0] == losses[1]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "tower.sequences cannot be pipelined; the loop goes on without pipelining"
    ]


@pytest.mark.parametrize(
    ("pipelining", "kind"), [("auto", PlainStepper), ("off", PlainStepper), ("on", PipelinedStepper)]
)
def test_a_cpu_pipelines_only_when_told(pipelining: Pipelining, kind: type) -> None:
    assert type(Job(pipelining).stepper) is kind


def test_plain_tables_have_nothing_to_send_ahead() -> None:
    config = TablesConfig(backend="plain")
    placed = place(Model(PlainTables(LAYOUT)), config=config, device=CPU)

    assert isinstance(stepper_of(placed, "auto"), PlainStepper)
    with pytest.raises(TrainingError, match=r"training\.pipeline: on was asked for and the tables are plain ones"):
        stepper_of(placed, "on")


def test_loading_the_pipeline_warns_of_nothing() -> None:
    with warnings.catch_warnings(action="error"):
        import recmoe.embeddings.pipeline  # noqa: F401
