"""ResFlow: the sums of the paper row by row, logits along the chain, and chains that make no sense."""

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from recmoe.architectures.resflow import ResFlow, ResFlowConfig
from recmoe.architectures.seam import Inputs, Parts
from recmoe.axes import describe
from recmoe.conformance.loop import equal_to_loop
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.tower import TowerConfig

TASKS = ("order", "watch", "click", "cart")
CHAIN = ("click", "cart", "order")


def tasks_of(**kinds: Any) -> TaskSet:
    tasks = {name: {"kind": kinds.get(name, "binary"), "label": name} for name in TASKS}
    return TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(tasks))


def model_of(**changes: Any) -> Any:
    torch.manual_seed(0)
    tasks = tasks_of()
    model = ResFlowConfig(chain=CHAIN, hidden=(5, 4), **changes).assemble(
        Parts(
            widths={"all": 3},
            tasks=tasks,
            make_tower=lambda width, name: TowerConfig(hidden=(3,)).build(in_features=width, logits=tasks.logits[name]),
        )
    )
    assert isinstance(model, ResFlow)
    return model.double().eval()


def resflow_row(model: Any, x_D: Tensor, *, adds_logits: bool) -> Tensor:
    """Layer by layer and task by task: relu(W · x + b), and what the same layer of the step before gave."""
    before = {"cart": "click", "order": "cart"}
    networks = model.inner.architecture
    x = dict.fromkeys(TASKS, x_D)
    for layer in networks.layers:
        y: dict[str, Tensor] = {}
        for name in ("click", "cart", "order", "watch"):
            at = TASKS.index(name)
            y[name] = torch.relu(layer.weights_EOD[0][at] @ x[name] + layer.biases_EO[0][at])
            if name in before:
                y[name] = y[name] + y[before[name]]
        x = y
    logits: dict[str, Tensor] = {}
    for name in ("click", "cart", "order", "watch"):
        logits[name] = model.inner.towers[TASKS.index(name)](x[name][None])[0, 0]
        if adds_logits and name in before:
            logits[name] = logits[name] + logits[before[name]]
    return torch.stack([logits[name] for name in TASKS])


@pytest.mark.parametrize("num_rows", [1, 5])
@pytest.mark.parametrize("adds_logits", [True, False])
def test_logits_equal_loop_written_from_the_paper(num_rows: int, adds_logits: bool) -> None:
    model = model_of(logits=adds_logits)

    equal_to_loop(
        model,
        lambda x_BD: model(Inputs(x_BD)).logits_BZ,
        lambda x_D: resflow_row(model, x_D, adds_logits=adds_logits),
        num_rows=num_rows,
        in_features=3,
    )


def test_later_step_teaches_the_earlier_ones_and_not_the_other_way_round() -> None:
    model = model_of()
    weight_EOD = model.inner.architecture.layers[0].weights_EOD[0]

    def moved_by(task: str) -> set[str]:
        logit_B = model(Inputs(torch.randn(50, 3, dtype=torch.float64))).logits_BZ[:, TASKS.index(task)]
        [gradient_EOD] = torch.autograd.grad(logit_B.sum(), [weight_EOD])
        return {name for name, of_task in zip(TASKS, gradient_EOD, strict=True) if of_task.any()}

    moved = {task: moved_by(task) for task in TASKS}

    assert moved == {
        "click": {"click"},
        "cart": {"click", "cart"},
        "order": {"click", "cart", "order"},
        "watch": {"watch"},
    }


def test_network_is_known_by_the_steps_that_it_adds_to() -> None:
    described = describe(model_of())

    networks = described["inner.architecture.layers.1.weights_EOD.0"].axes[0]

    assert networks == (("click", "cart", "order"), ("watch",), ("click",), ("click", "cart"))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"chain": ("click", "pay")}, "no such task with a tower: pay (there are order, watch, click, cart)"),
        ({"chain": ("click", "cart", "click")}, "click is given twice; a chain has no way back"),
        (
            {"chain": ("click", "watch")},
            "watch is no probability, so its logit cannot be added; name the binary tasks of the chain, or set "
            "model.architecture.logits to false",
        ),
    ],
)
def test_chain_that_makes_no_sense_is_refused(changes: dict[str, Any], problem: str) -> None:
    tasks = tasks_of(watch="regression")

    problems = list(ResFlowConfig(**changes).task_problems(tasks, ()))

    assert problems == [("chain", problem)]


def test_any_tasks_are_linked_where_logits_are_left_out() -> None:
    config = ResFlowConfig(chain=("click", "watch"), logits=False)

    assert list(config.task_problems(tasks_of(watch="regression"), ())) == []
