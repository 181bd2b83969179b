"""ESCM²: the paper's losses row by row, what they are worth on clicks that are no fair sample, and bad configs."""

import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from recmoe.architectures.escm2 import ESCM2, ESCM2Config
from recmoe.architectures.seam import Inputs, Outputs, Parts, Targets
from recmoe.embeddings.tables import PlainTables
from recmoe.features.batch import Batch
from recmoe.features.layout import DenseColumn, InputLayout
from recmoe.model import ModelConfig, build_training_model
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.tower import TowerConfig

TASKS = {
    "ctr": {"kind": "binary", "label": "click"},
    "cvr": {"kind": "binary", "label": "buy", "space": "click"},
    "ctcvr": {"kind": "product", "of": ["ctr", "cvr"]},
}
CLICK = [1.0, 0.0, 1.0, 0.0]
BUY = [1.0, 0.0, 0.0, 0.0]
TARGETS = Targets(torch.tensor([CLICK, BUY, BUY]).t(), torch.tensor([[1.0, 1.0, 1.0], [1, 0, 1], [1, 1, 1], [1, 0, 1]]))


def tasks_of(tasks: dict[str, Any] = TASKS) -> TaskSet:
    return TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(tasks))


def model_of(**changes: Any) -> ESCM2:
    torch.manual_seed(0)
    tasks = tasks_of()
    model = ESCM2Config(hidden=(8,), **changes).assemble(
        Parts(
            widths={"all": 3},
            tasks=tasks,
            make_tower=lambda width, name: TowerConfig().build(in_features=width, logits=tasks.logits[name]),
        )
    )
    assert isinstance(model, ESCM2)
    return model


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def entropy(y: float, p: float) -> float:
    return -y * math.log(p) - (1 - y) * math.log(1 - p)


def row_by_row(logits_BZ: Tensor, imputed_B: list[float], min_propensity: float) -> dict[str, float]:
    """L_IPS, L_DR and L_imputed as the equations have them."""
    ips = dr = imputation = 0.0
    for (click_z, buy_z), o, y, e_hat in zip(logits_BZ.tolist(), CLICK, BUY, imputed_B, strict=True):
        p = max(sigmoid(click_z), min_propensity)
        e = entropy(y, sigmoid(buy_z))
        ips += o * e / p
        dr += e_hat + o * (e - e_hat) / p
        imputation += o * (e - e_hat) ** 2 / p
    return {"ips": ips / len(CLICK), "dr": dr / len(CLICK), "imputed": imputation / len(CLICK)}


@pytest.mark.parametrize("min_propensity", [0.01, 0.6])
def test_losses_equal_the_equations_row_by_row(min_propensity: float) -> None:
    logits_BZ = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
    imputed = [0.3, 0.8, 0.1, 0.5]
    expected = row_by_row(logits_BZ, imputed, min_propensity)

    ips = model_of(method="ips", min_propensity=min_propensity).losses(Outputs(logits_BZ), TARGETS)
    outputs = Outputs(logits_BZ, (), {"imputed": torch.tensor(imputed)})
    dr = model_of(method="dr", min_propensity=min_propensity).losses(outputs, TARGETS)

    assert ips["cvr_ips"].item() == pytest.approx(expected["ips"], rel=1e-5)
    assert dr["cvr_dr"].item() == pytest.approx(expected["dr"], rel=1e-5)
    assert dr["cvr_imputed"].item() == pytest.approx(expected["imputed"], rel=1e-5)


def test_own_loss_stands_for_that_of_the_conversion_alone() -> None:
    model = model_of(method="dr", counterfactual=0.2)

    assert model.replaces == {"cvr"}
    assert model.loss_weights == {"cvr_dr": 0.2, "cvr_imputed": 0.2}


@pytest.mark.parametrize("method", ["ips", "dr"])
def test_propensity_gets_no_gradient_from_the_conversion(method: str) -> None:
    model = model_of(method=method)
    outputs = model(Inputs(torch.randn(4, 3)))

    sum(model.losses(outputs, TARGETS).values()).backward()

    click, conversion = model.inner.towers
    assert all(weight.grad is None or not weight.grad.any() for weight in click.parameters())
    assert any(weight.grad is not None and weight.grad.any() for weight in conversion.parameters())


def test_inverse_propensities_undo_that_the_clicked_are_no_fair_sample() -> None:
    torch.manual_seed(0)
    # Rows of kind 1 are clicked eight times as often, and buy less; a model that knows no kinds has one rate.
    kind_N = (torch.rand(200_000) < 0.5).float()
    p_click_N, p_buy_N = 0.05 + 0.35 * kind_N, 0.6 - 0.4 * kind_N
    click_N = (torch.rand(200_000) < p_click_N).float()
    buy_N = click_N * (torch.rand(200_000) < p_buy_N).float()
    targets = Targets(
        torch.stack([click_N, buy_N, buy_N], dim=1),
        torch.stack([torch.ones(200_000), click_N, torch.ones(200_000)], dim=1),
    )
    model = model_of(method="ips")
    rate = torch.zeros((), requires_grad=True)

    for _ in range(60):
        logits_BZ = torch.stack([torch.logit(p_click_N), rate.expand(200_000)], dim=1)
        (gradient,) = torch.autograd.grad(model.losses(Outputs(logits_BZ), targets)["cvr_ips"], rate)
        rate = (rate - 4.0 * gradient).detach().requires_grad_()

    among_clicked = float(buy_N.sum() / click_N.sum())
    assert among_clicked == pytest.approx(0.244, abs=0.01)
    assert torch.sigmoid(rate).item() == pytest.approx(0.4, abs=0.015)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"click": "crt"}, ("click", "no such task with a tower: crt (there are ctr, cvr)")),
        ({"conversion": "ctcvr"}, ("conversion", "no such task with a tower: ctcvr (there are ctr, cvr)")),
    ],
)
def test_task_that_is_not_there_is_a_problem_of_the_config(changes: dict[str, str], problem: tuple[str, str]) -> None:
    assert list(ESCM2Config(**changes).task_problems(tasks_of(), ())) == [problem]


def test_value_is_no_conversion() -> None:
    tasks = tasks_of({"ctr": TASKS["ctr"], "spend": {"kind": "regression", "label": "spend", "space": "click"}})

    assert list(ESCM2Config().task_problems(tasks, ())) == [
        ("conversion", "spend is no probability; name a binary task")
    ]


@pytest.mark.parametrize("weighting", ["fixed", "uncertainty", "dwa", "famo"])
def test_loss_that_is_replaced_takes_no_part_in_any_weighting(weighting: str) -> None:
    layout = InputLayout(tables=(), sparse=(), dense=(DenseColumn("price", "price", "item", "value"),))
    config = ModelConfig.model_validate({"architecture": {"kind": "escm2"}, "weighting": {"kind": weighting}})
    model = build_training_model(layout=layout, tasks=tasks_of(), config=config, tables=PlainTables)
    none = torch.empty(0, 4, dtype=torch.int32), torch.empty(0, dtype=torch.int64)
    batch = Batch(torch.randn(4, 1), *none, torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))

    loss, losses_L = model(batch)
    loss.backward()

    assert model.loss_names == ("ctr", "cvr", "ctcvr", "cvr_dr", "cvr_imputed")
    assert losses_L[1] > 0
    for name, weight in model.weighting.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad[1] == 0
    assert model.weighting.weights_T.tolist() == [1.0, 0.0, 1.0]
