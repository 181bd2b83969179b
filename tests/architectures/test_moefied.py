"""Moefied: equal to a loop over hidden units, and configs that cannot be split."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from recmoe.architectures.moefied import Moefied, MoefiedConfig, Router, SplitExpert
from recmoe.moe.experts.stack import SeparateExperts


def by_hand(model: Moefied, x_D: Tensor, k: int) -> Tensor:
    """One row, expert by expert and unit by unit."""
    z = x_D
    for lower in model.lower:
        assert isinstance(lower, nn.Linear)
        z = torch.relu(lower.weight @ z + lower.bias)
    (gate,) = model.layer.gates
    assert isinstance(gate, Router)
    scores = [(gate.weight_VD[e] @ z + gate.bias_V[e]).item() for e in range(len(gate.bias_V))]
    chosen = sorted(range(len(scores)), key=lambda e: -scores[e])[:k]
    h_H = model.bias_H.clone()
    assert isinstance(model.layer.experts, SeparateExperts)
    for place in chosen:
        expert = model.layer.experts.experts[place]
        assert isinstance(expert, SplitExpert)
        for unit in range(len(expert.units.bias)):
            a = torch.relu(expert.units.weight[unit] @ z + expert.units.bias[unit])
            h_H = h_H + a * expert.output.weight[:, unit]
    return torch.relu(h_H)


@pytest.mark.parametrize("hidden", [(12, 5), (7, 12, 5)])
@pytest.mark.parametrize("k", [1, 3, 4])
def test_representation_equals_a_loop_over_units(hidden: tuple[int, ...], k: int) -> None:
    torch.manual_seed(0)
    model = MoefiedConfig(hidden=hidden, num_experts=4, k=k).build(in_features=6, task_names=("ctr", "cvr")).eval()
    (gate,) = model.layer.gates
    assert isinstance(gate, Router)
    gate.bias_V.copy_(torch.randn(4))
    x_BD = torch.randn(9, 6)

    h, _ = model(x_BD)

    expected_BH = torch.stack([by_hand(model, x_D, k) for x_D in x_BD])
    assert torch.allclose(h[0], expected_BH, atol=1e-5)
    assert torch.equal(h[0], h[1])


def test_dropout_is_that_of_every_layer_as_in_the_network_that_was_split() -> None:
    model = MoefiedConfig(hidden=(40, 60, 15), num_experts=4, k=4, dropout=0.5).build(
        in_features=6, task_names=("ctr",)
    )
    for weight in model.parameters():
        torch.nn.init.constant_(weight, 0.1)
    x_BD = torch.ones(500, 6)
    torch.manual_seed(0)
    expert = model.layer.experts.experts[0]
    assert isinstance(expert, SplitExpert)
    # What it hands on are its own units.
    expert.output.weight.data = torch.eye(15)

    def dropped() -> list[float]:
        made = [model.lowered(x_BD), expert(torch.ones(500, 40)), model(x_BD)[0][0]]
        return [float((h_BH == 0).float().mean()) for h_BH in made]

    assert dropped() == pytest.approx([0.5] * 3, abs=0.03)
    model.eval()
    assert dropped() == [0.0] * 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden": (12, 8), "num_experts": 5}, r"the 12 units .* num_experts = 5 parts of one size; choose a number"),
        ({"hidden": (12, 8), "num_experts": 4, "k": 5}, r"cannot use k = 5 of num_experts = 4 parts; set k lower"),
        ({"hidden": (12,)}, r"at least 2 items"),
    ],
)
def test_config_that_cannot_be_split_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MoefiedConfig.model_validate(values)
