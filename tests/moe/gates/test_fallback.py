"""Fallback gate: row by row from its equations, and whose experts it falls back to in a layer."""

import math

import pytest
import torch

from recmoe.moe.gates.fallback import FallbackGate, FallbackGateConfig
from recmoe.moe.mixture import MixtureConfig

NAMES = ("ctr.0", "ctr.1", "shared.0", "shared.1")


def gate_of(*, limit: float = 0.8, names: tuple[str, ...] = NAMES) -> FallbackGate:
    torch.manual_seed(0)
    gate = FallbackGate(in_features=5, num_experts=len(names), limit=limit, temperature=0.7)
    gate.take_names(names)
    return gate


@pytest.mark.parametrize("limit", [0.0, 0.8, 0.95])
def test_weights_equal_the_equations_row_by_row(limit: float) -> None:
    gate = gate_of(limit=limit).requires_grad_(False)
    x_BD = torch.randn(60, 5)

    q_BV = gate(x_BD)

    num_fallen = 0
    for x_D, q_V in zip(x_BD, q_BV, strict=True):
        exps = [math.exp(float(w_D @ x_D) / 0.7) for w_D in gate.weight_VD]
        p = [value / sum(exps) for value in exps]
        entropy = -sum(share * math.log(share) for share in p) / math.log(4)
        unsure = max(0.0, (entropy - limit) / (1 - limit))
        num_fallen += unsure > 0
        expected = [(1 - unsure) * share + unsure * mean for share, mean in zip(p, [0, 0, 0.5, 0.5], strict=True)]
        torch.testing.assert_close(q_V, torch.tensor(expected))
    assert (0 < num_fallen < 60) == (limit > 0)


def test_row_of_even_shares_has_the_shared_experts_alone() -> None:
    gate = gate_of()

    q_BV = gate(torch.zeros(1, 5))

    torch.testing.assert_close(q_BV[0], torch.tensor([0.0, 0.0, 0.5, 0.5]))


@pytest.mark.parametrize(
    "names", [("ctr.0", "ctr.1", "ctr.2"), ("shared.0", "shared.1", "shared.2")], ids=["no shared", "all shared"]
)
def test_gate_without_a_difference_falls_back_to_the_mean_of_all(names: tuple[str, ...]) -> None:
    gate = gate_of(names=names)
    x_BD = 0.01 * torch.randn(20, 5)

    q_BV = gate(x_BD)

    torch.testing.assert_close(q_BV, torch.full((20, 3), 1 / 3), atol=1e-3, rtol=0)


def test_layer_says_which_experts_are_shared() -> None:
    torch.manual_seed(0)
    layer = MixtureConfig(gate=FallbackGateConfig(), expert_hidden=(4,)).layer(
        experts=dict.fromkeys(("ctr.0", "cvr.0", "shared.0"), 0),
        gates={"ctr": 0, "cvr": 0},
        mask_GE=[[True, False, True], [False, True, True]],
        in_features=5,
    )

    (ctr_BH, cvr_BH), use = layer([torch.zeros(3, 5)])

    torch.testing.assert_close(use.weights_BGE[0], torch.tensor([[0.0, 0.0, 1.0]] * 2))
    torch.testing.assert_close(ctr_BH, cvr_BH)


def test_row_that_falls_back_still_learns_to_choose_an_own_expert() -> None:
    gate = gate_of()
    x_BD = torch.cat([torch.ones(20, 1), 0.1 * torch.randn(20, 4)], dim=1)
    # Nothing but the own expert of ctr is of use.
    error_V = torch.tensor([0.0, 1.0, 1.0, 1.0])
    optimizer = torch.optim.Adam([gate.weight_VD], lr=0.05)
    gate.weight_VD.data.mul_(0.01)

    before_BV = gate(x_BD).detach()
    for _ in range(200):
        optimizer.zero_grad()
        (gate(x_BD) @ error_V).mean().backward()
        optimizer.step()

    assert before_BV[:, :2].max() < 0.01
    assert gate(x_BD)[:, 0].min() > 0.9
