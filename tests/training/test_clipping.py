"""Every part of a gradient is cut to its own norm, alike in all workers, and the norms are curves."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, multiprocessing
from torch import distributed as dist

from recmoe.config import config_from_dict
from recmoe.embeddings.logical import dense_parameters
from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import TablesConfig
from recmoe.errors import ConfigError
from recmoe.features.batch import Batch
from recmoe.features.layout import DenseColumn, InputLayout, SparseKey, TableSpec
from recmoe.model import ModelConfig, build_training_model
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.training.clipping import ClipByPart, Clipping, make_clipping
from recmoe.training.loop import TrainingConfig
from recmoe.training.optimizers import ConstantSchedule
from recmoe.training.step import PlainStepper, Update

NUM_ROWS = 16
LAYOUT = InputLayout(
    tables=(TableSpec("user", 20, 4, "sum", ("user",)),),
    sparse=(SparseKey("user", "user", "user", "user", 4),),
    dense=(DenseColumn("price", "price", "item", "value"), DenseColumn("age", "age", "user", "position", 4, 3)),
)
OWN = ClipByPart(inputs=1e-3, gates=2e-3, experts=3e-3, towers=4e-3, others=5e-3)


class Job:
    """A model of two tasks with a weighting that learns, and its plain steps."""

    def __init__(self, clip_norm: float | ClipByPart | None, *, backend: str = "plain", kind: str = "mmoe") -> None:
        task = TypeAdapter[TaskConfig](TaskConfig)
        tasks = TaskSet({name: task.validate_python({"kind": "binary", "label": name}) for name in ("click", "buy")})
        tables = TablesConfig.model_validate({"backend": backend, "optimizer": {"kind": "sgd", "lr": 0.1}})
        architecture: dict[str, Any] = {"kind": kind}
        if kind == "mmoe":
            architecture |= {"num_experts": 3, "expert_hidden": [8]}
        model = build_training_model(
            layout=LAYOUT,
            tasks=tasks,
            config=ModelConfig.model_validate({"architecture": architecture, "weighting": {"kind": "uncertainty"}}),
            tables=lambda layout: tables.build(layout=layout, seed=1),
        )
        self.placed = place(model, config=tables, device=torch.device("cpu"))
        parameters = dict(dense_parameters(self.placed.model))
        optimizer = torch.optim.SGD(parameters.values(), lr=0.5)
        self.clipping = make_clipping(clip_norm, model=self.placed.model, optimizer=optimizer)
        update = Update(optimizer, self.placed.table_optimizer, 0.5, ConstantSchedule(), self.clipping)
        self.stepper = PlainStepper(losses=self.placed.model, prepare=lambda batch, _: batch, update=update)

    def step(self, *, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        """The gradients that the optimizer got, by name."""
        self.stepper.step(iter([batch_of(rank, world_size)]), step=0, num_steps=1)
        return {name: p.grad.clone() for name, p in dense_parameters(self.placed.model) if p.grad is not None}


def batch_of(rank: int, world_size: int) -> Batch:
    """This process's part of the rows."""
    generator = torch.Generator().manual_seed(3)
    ids_B = torch.randint(0, 20, (NUM_ROWS,), generator=generator)
    dense_BF = torch.rand(NUM_ROWS, 2, generator=generator) * 3
    labels_BL = torch.stack([ids_B < 4, dense_BF[:, 0] > 2], dim=1).float()
    rows = slice(rank * NUM_ROWS // world_size, (rank + 1) * NUM_ROWS // world_size)
    num_rows = NUM_ROWS // world_size
    return Batch(dense_BF[rows], torch.ones(1, num_rows, dtype=torch.int32), ids_B[rows], labels_BL[rows])


def part_of(name: str) -> str:
    """Read off the name of a parameter of an MMoE."""
    marks = {"input_layer": "inputs", ".gates.": "gates", ".experts.": "experts", ".towers.": "towers"}
    return next((part for mark, part in marks.items() if mark in name), "others")


def test_every_part_is_cut_to_a_norm_of_its_own() -> None:
    free, clipped = Job(None), Job(OWN)

    before, after = free.step(), clipped.step()

    assert {part_of(name) for name in before} == {"inputs", "gates", "experts", "towers", "others"}
    for part, limit in OWN.model_dump().items():
        names = [name for name in before if part_of(name) == part]
        norm = sum(float(before[name].square().sum()) for name in names) ** 0.5
        assert norm > limit, part
        for name in names:
            torch.testing.assert_close(after[name], before[name] * (limit / norm), rtol=1e-3, atol=1e-9, msg=name)
        assert clipped.clipping.curves()[f"train/gradient_norm/{part}"] == pytest.approx(norm, rel=1e-5)


def test_parts_without_a_norm_are_cut_together() -> None:
    free, clipped = Job(None), Job(ClipByPart(gates=1.0, others=0.01))

    before, after = free.step(), clipped.step()

    others = [name for name in before if part_of(name) != "gates"]
    norm = sum(float(before[name].square().sum()) for name in others) ** 0.5
    for name, grad in after.items():
        factor = 0.01 / norm if name in others else 1.0
        torch.testing.assert_close(grad, before[name] * factor, rtol=1e-3, atol=1e-9, msg=name)
    assert set(clipped.clipping.curves()) == {"train/gradient_norm/gates", "train/gradient_norm/others"}


def test_one_number_is_a_norm_for_all_parts_together() -> None:
    free, clipped = Job(None), Job(0.01)

    before, after = free.step(), clipped.step()

    norm = sum(float(grad.square().sum()) for grad in before.values()) ** 0.5
    assert clipped.clipping.curves() == {"train/gradient_norm/all": pytest.approx(norm, rel=1e-5)}
    assert sum(float(grad.square().sum()) for grad in after.values()) ** 0.5 == pytest.approx(0.01, rel=1e-3)


def test_null_for_the_others_leaves_them_as_they_are() -> None:
    free, clipped = Job(None), Job(ClipByPart(towers=1e-3, others=None))

    before, after = free.step(), clipped.step()

    assert all(torch.equal(grad, before[name]) for name, grad in after.items() if part_of(name) != "towers")
    assert list(clipped.clipping.curves()) == ["train/gradient_norm/towers"]


def test_a_model_without_gates_passes_their_norm_over() -> None:
    job = Job(ClipByPart(gates=1e-3, towers=1e-3, others=None), kind="shared_bottom")

    job.step()

    assert list(job.clipping.curves()) == ["train/gradient_norm/towers"]


def test_without_clipping_there_are_no_curves() -> None:
    assert Clipping().curves() == {}
    assert Job(None).clipping.parts == ()


def test_config_takes_a_number_null_or_norms_by_part() -> None:
    configs = [TrainingConfig.model_validate({"clip_norm": value}) for value in (3, None, {"gates": 1})]

    assert [config.clip_norm for config in configs] == [3.0, None, ClipByPart(gates=1.0)]
    assert TrainingConfig.model_validate(configs[2].model_dump()) == configs[2]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"gate": 1}, r"clip_norm\.gate: unknown key, did you mean gates\?"),
        ({"gates": 0}, r"clip_norm\.gates: input should be greater than 0"),
        (-1, r"clip_norm: input should be greater than 0"),
    ],
)
def test_wrong_norms_are_named(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_dict(TrainingConfig, {"clip_norm": value})


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    job = Job(OWN, backend="torchrec")
    torch.save((job.step(rank=rank, world_size=2), dict(job.clipping.curves())), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_clip_as_one_with_all_the_rows(tmp_path: Path) -> None:
    job = Job(OWN)
    expected = job.step()

    multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=2)

    for rank in range(2):
        grads, curves = torch.load(tmp_path / f"{rank}.pt")
        for name, grad in expected.items():
            torch.testing.assert_close(grads[name], grad, rtol=1e-4, atol=1e-8, msg=name)
        assert curves == pytest.approx(dict(job.clipping.curves()), rel=1e-5)
