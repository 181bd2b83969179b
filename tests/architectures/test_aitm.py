"""AITM: the paper's equations row by row, its calibrator, and chains that make no sense."""

import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from recmoe.architectures.aitm import AITM, AITMConfig, Transfer
from recmoe.architectures.seam import Inputs, Outputs, Parts, Targets
from recmoe.axes import describe
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.tower import TowerConfig

HIDDEN = (5, 4)


def tasks_of(**tasks: Any) -> TaskSet:
    binary = {name: {"kind": "binary", "label": name, **changes} for name, changes in tasks.items()}
    return TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(binary))


def model_of(tasks: TaskSet, config: AITMConfig = AITMConfig(hidden=HIDDEN)) -> AITM:  # noqa: B008
    torch.manual_seed(0)
    model = config.assemble(
        Parts(
            widths={"all": 3},
            tasks=tasks,
            make_tower=lambda width, name: TowerConfig().build(in_features=width, logits=tasks.logits[name]),
        )
    )
    assert isinstance(model, AITM)
    return model


def test_representations_equal_the_equations_row_by_row() -> None:
    torch.manual_seed(0)
    transfer = Transfer(
        in_features=3, task_names=("click", "buy", "rate"), chain=("click", "buy", "rate"), hidden=HIDDEN
    )
    transfer.double().requires_grad_(False)
    x_BD = torch.randn(4, 3, dtype=torch.float64)

    h, _ = transfer(x_BD)

    def network(task: int, x_D: Tensor) -> Tensor:
        for weight_EOD, bias_EO in zip(transfer.networks.weights_EOD, transfer.networks.biases_EO, strict=True):
            x_D = torch.relu(weight_EOD[task] @ x_D + bias_EO[task])
        return x_D

    for row, x_D in enumerate(x_BD):
        z = network(0, x_D)
        torch.testing.assert_close(h[0][row], z)
        for task in (1, 2):
            g = transfer.hands_on[task - 1]
            h1, h2, h3 = transfer.projections[task - 1].weight.split(4)
            b1, b2, b3 = transfer.projections[task - 1].bias.split(4)
            # Eq. 7-9: u in {p, q}; ŵ_u = ⟨h2(u), h3(u)⟩ / √k; w = softmax(ŵ); z = Σ w_u · h1(u)
            sources = [g.weight @ z + g.bias, network(task, x_D)]
            scores = [float((h2 @ u + b2) @ (h3 @ u + b3)) / math.sqrt(4) for u in sources]
            total = sum(math.exp(score) for score in scores)
            z = sum(math.exp(score) / total * (h1 @ u + b1) for score, u in zip(scores, sources, strict=True))
            torch.testing.assert_close(h[task][row], z)


def test_calibrator_is_the_mean_of_what_a_step_is_more_probable_than_the_one_before() -> None:
    tasks = tasks_of(click={}, buy={}, rate={})
    model = model_of(tasks)
    p_BT = torch.tensor([[0.5, 0.7, 0.1], [0.3, 0.2, 0.6]])
    outputs = Outputs(torch.logit(p_BT))

    losses = model.losses(outputs, Targets(torch.zeros(2, 3), torch.ones(2, 3)))

    assert losses["calibrator"].item() == pytest.approx((0.2 + 0.4) / 2)
    assert model.loss_weights == {"calibrator": 0.6}


def test_without_a_calibrator_there_is_no_own_loss() -> None:
    model = model_of(tasks_of(click={}, buy={}), AITMConfig(hidden=HIDDEN, calibrator=0.0))

    losses = model.losses(model(Inputs(torch.randn(2, 3))), Targets(torch.zeros(2, 2), torch.ones(2, 2)))

    assert losses == {}


def test_task_beside_the_chain_reads_its_own_network_alone() -> None:
    tasks = tasks_of(like={}, click={}, buy={})
    model = model_of(tasks, AITMConfig(hidden=HIDDEN, chain=("click", "buy")))
    x_BD = torch.randn(2, 3)

    h, uses = model.inner.architecture(x_BD)

    assert torch.equal(h[0], model.inner.architecture.networks([x_BD])[0])
    assert [(use.gates, use.experts) for use in uses] == [(("buy",), ("click", "buy"))]


def test_what_connects_two_steps_belongs_to_both() -> None:
    two, three = (model_of(tasks) for tasks in (tasks_of(click={}, buy={}), tasks_of(view={}, click={}, buy={})))

    names = {one.name for one in describe(two).values()}

    assert "inner.architecture.hands_on[click→buy].weight" in names
    assert names <= {one.name for one in describe(three).values()}


@pytest.mark.parametrize(
    ("chain", "problem"),
    [
        (("click", "bye"), "no such task with a tower: bye (there are click, buy, spend)"),
        (("click", "spend"), "spend is no probability; name the binary tasks of the chain"),
        (("click", "buy"), "buy lives in click and click in all, so their probabilities cannot be compared row by row"),
    ],
)
def test_chain_that_makes_no_sense_is_a_problem_of_the_config(chain: tuple[str, ...], problem: str) -> None:
    tasks = tasks_of(click={}, buy={"space": "click"}, spend={"kind": "regression"})

    found = [message for _, message in AITMConfig(chain=chain).task_problems(tasks, ())]

    assert any(message.startswith(problem) for message in found)
