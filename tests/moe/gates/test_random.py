"""Random gate: its shares row by row, K step by step, a router that stays, and weights that serve with any k."""

import math

import pytest
import torch

from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.gates.random import RandomGate, RandomGateConfig
from recmoe.moe.mixture import MixtureConfig


def gate_of(*, num_experts: int = 6, first_k: int = 2, grow_steps: int = 10, k: int | None = None) -> RandomGate:
    torch.manual_seed(0)
    return RandomGate(in_features=5, num_experts=num_experts, first_k=first_k, grow_steps=grow_steps, k=k)


@pytest.mark.parametrize("k", [1, 3, 9, None])
def test_weights_equal_the_softmax_of_the_largest_row_by_row(k: int | None) -> None:
    gate = gate_of(k=k).eval()
    x_BD = torch.randn(20, 5)

    p_BV = gate(x_BD)

    for x_D, p_V in zip(x_BD, p_BV, strict=True):
        logits = [float(w_D @ x_D) for w_D in gate.weight_VD]
        chosen = sorted(range(6), key=lambda v: -logits[v])[:k]
        total = sum(math.exp(logits[v]) for v in chosen)
        expected = [math.exp(logits[v]) / total if v in chosen else 0.0 for v in range(6)]
        torch.testing.assert_close(p_V, torch.tensor(expected))


@pytest.mark.parametrize(("num_experts", "first_k", "grow_steps"), [(6, 2, 10), (16, 2, 7), (3, 1, 1), (2, 4, 5)])
def test_experts_of_a_row_grow_in_a_line(num_experts: int, first_k: int, grow_steps: int) -> None:
    gate = gate_of(num_experts=num_experts, first_k=first_k, grow_steps=grow_steps)
    x_BD = torch.randn(8, 5)

    num_used = [(gate(x_BD) > 0).sum(dim=1).unique().tolist() for _ in range(grow_steps + 3)]

    first = min(first_k, num_experts)
    expected = [
        first + round((num_experts - first) * min(step, grow_steps) / grow_steps) for step in range(len(num_used))
    ]
    assert num_used == [[count] for count in expected]
    assert expected[-1] == num_experts


def test_evaluation_is_no_step_and_is_done_as_serving_is() -> None:
    gate = gate_of(first_k=1, k=4)
    x_BD = torch.randn(8, 5)
    gate(x_BD)

    used = [(gate.eval()(x_BD) > 0).sum(dim=1).tolist() for _ in range(5)]
    trained = (gate.train()(x_BD) > 0).sum(dim=1).tolist()

    assert used == [[4] * 8] * 5
    # Step 1 of 10: 1 + round(5 / 10).
    assert trained == [1] * 8


@pytest.mark.parametrize(("k", "in_serving"), [(2, True), (6, False), (None, False)])
def test_gate_is_sparse_until_all_experts_are_used(k: int | None, in_serving: bool) -> None:
    gate = gate_of(grow_steps=3, k=k)

    in_training = []
    for _ in range(5):
        in_training.append(gate.is_sparse)
        gate(torch.randn(2, 5))

    assert in_training == [True, True, True, False, False]
    assert gate.eval().is_sparse == in_serving


def layer_of(k: int | None) -> ExpertLayer:
    torch.manual_seed(1)
    return MixtureConfig(gate=RandomGateConfig(first_k=1, grow_steps=100, k=k), expert_hidden=(16,)).layer(
        experts={f"shared.{expert}": 0 for expert in range(4)}, gates={"ctr": 0}, mask_GE=[[True] * 4], in_features=3
    )


def test_router_stays_as_it_was_drawn_while_experts_learn_and_any_k_serves() -> None:
    torch.manual_seed(0)
    x_BD = torch.randn(512, 3)
    wanted_B = x_BD[:, 0].abs()
    layer, read = layer_of(None), torch.nn.Linear(16, 1)
    drawn_VD = layer.gates[0].weight_VD.clone()
    optimizer = torch.optim.Adam([*layer.parameters(), *read.parameters()], lr=0.02)

    for _ in range(200):
        loss = (read(layer([x_BD])[0][0])[:, 0] - wanted_B).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    errors = []
    for k in (1, 2, None):
        served = layer_of(k).eval()
        served.load_state_dict(layer.state_dict())
        errors.append((read(served([x_BD])[0][0])[:, 0] - wanted_B).square().mean().item())

    assert torch.equal(layer.gates[0].weight_VD, drawn_VD)
    assert not list(layer.gates.parameters())
    # A constant's is the variance, 0.36; all experts know more than one alone.
    assert errors[2] < errors[0] < 0.2
    assert errors[2] < 0.02
