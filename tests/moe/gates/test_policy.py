"""Policy gate: what it draws, what it serves, and how sure it was."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from recmoe.moe.gates.policy import PolicyGate, PolicyGateConfig
from recmoe.moe.linear import SidedInput
from recmoe.moe.mixture import MixtureConfig


def gate_of(*, num_experts: int = 3) -> PolicyGate:
    torch.manual_seed(0)
    return PolicyGate(in_features=4, num_experts=num_experts)


def test_serving_takes_the_most_probable_expert() -> None:
    gate = gate_of().eval().requires_grad_(False)
    x_BD = torch.randn(20, 4)

    p_BV = gate(x_BD)

    for x_D, p_V in zip(x_BD, p_BV.tolist(), strict=True):
        logits = [float(w_D @ x_D) for w_D in gate.weight_VD]
        assert p_V == [float(logit == max(logits)) for logit in logits]


def test_training_draws_experts_by_their_probability() -> None:
    gate = gate_of().requires_grad_(False)
    gate.weight_VD *= 3
    x_D = torch.randn(4)

    p_BV = gate(x_D.expand(20_000, 4))

    exps = [math.exp(float(w_D @ x_D)) for w_D in gate.weight_VD]
    assert p_BV.unique().tolist() == [0.0, 1.0]
    assert p_BV.mean(dim=0).tolist() == pytest.approx([value / sum(exps) for value in exps], abs=0.02)


def test_policy_is_what_led_to_the_draw() -> None:
    gate = gate_of().requires_grad_(False)
    x_BD = torch.randn(20, 4)

    given = gate.weigh(x_BD)

    assert given.policy is not None
    for x_D, p_V, log_chance, expected in zip(
        x_BD, given.weights_BV, given.policy.log_chance_B, given.policy.expected_B, strict=True
    ):
        logits = [float(w_D @ x_D) for w_D in gate.weight_VD]
        drawn = p_V.tolist().index(1.0)
        assert log_chance.item() == pytest.approx(logits[drawn] - math.log(sum(map(math.exp, logits))), abs=1e-5)
        assert expected.item() == pytest.approx(float(gate.expected.weight[0] @ x_D + gate.expected.bias), abs=1e-5)


@pytest.mark.parametrize("is_sided", [False, True], ids=["rows", "sided"])
def test_its_own_loss_leaves_the_input_alone(is_sided: bool) -> None:
    gate = gate_of()
    x_BD = torch.randn(6, 4, requires_grad=True)
    sided = SidedInput(shared_RS=x_BD[:2, :3], own_CI=x_BD[:, 3:], request_C=torch.tensor([0, 0, 0, 1, 1, 1]))

    policy = gate.weigh(sided if is_sided else x_BD).policy

    assert policy is not None
    (policy.log_chance_B + policy.expected_B).sum().backward()
    assert x_BD.grad is None
    assert all(weight.grad is not None and weight.grad.any() for weight in gate.parameters())


def test_experts_that_were_not_drawn_are_not_computed_in_training() -> None:
    layer = MixtureConfig(gate=PolicyGateConfig(), expert_hidden=(8,)).layer(
        experts={f"shared.{expert}": 0 for expert in range(4)}, gates={"ctr": 0}, mask_GE=[[True] * 4], in_features=5
    )

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer([torch.randn(64, 5)])

    # One expert of 5 · 8 per row, and the products of the gate and its baseline.
    assert counter.get_total_flops() == 2 * 64 * (5 * 8 + 5 * 4 + 5)
