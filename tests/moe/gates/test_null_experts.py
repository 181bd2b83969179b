"""Null experts gate: the choice of AdaMoE row by row; null experts take places, and nothing else."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from recmoe.moe.gates.null_experts import NullExpertsGate, NullExpertsGateConfig
from recmoe.moe.mixture import MixtureConfig


def gate_of(*, k: int = 3, num_experts: int = 4, num_null: int = 3) -> NullExpertsGate:
    torch.manual_seed(0)
    return NullExpertsGate(in_features=5, num_experts=num_experts, k=k, num_null=num_null).requires_grad_(False)


def with_logits(experts: list[float], nulls: list[float], *, k: int) -> NullExpertsGate:
    """On the input 1 it has these logits."""
    gate = NullExpertsGate(in_features=1, num_experts=len(experts), k=k, num_null=len(nulls)).requires_grad_(False)
    gate.weight_VD.copy_(torch.tensor(experts).unsqueeze(1))
    gate.nulls_MD.copy_(torch.tensor(nulls).unsqueeze(1))
    return gate


@pytest.mark.parametrize("k", [1, 3, 7, 9])
def test_weights_equal_the_choice_row_by_row(k: int) -> None:
    gate = gate_of(k=k)
    x_BD = torch.randn(40, 5)

    p_BV = gate(x_BD)

    for x_D, p_V in zip(x_BD, p_BV, strict=True):
        logits = [float(w_D @ x_D) for w_D in [*gate.weight_VD, *gate.nulls_MD]]
        chosen = sorted(range(7), key=lambda place: -logits[place])[:k]
        true = [place for place in chosen if place < 4]
        total = sum(math.exp(logits[place]) for place in true)
        expected = [math.exp(logits[v]) / total if v in true else 0.0 for v in range(4)]
        torch.testing.assert_close(p_V, torch.tensor(expected))
    assert (p_BV > 0).sum(dim=1).unique().numel() > 1 or k >= 7


@pytest.mark.parametrize(
    ("nulls", "expected"),
    [([3.0, 0.0], [1.0, 0.0]), ([0.0, 0.0], [0.731, 0.269]), ([4.0, 3.0], [0.0, 0.0])],
    ids=["one null expert", "no null expert", "null experts alone"],
)
def test_null_experts_take_places_and_no_weight(nulls: list[float], expected: list[float]) -> None:
    gate = with_logits([2.0, 1.0], nulls, k=2)

    p_BV = gate(torch.ones(1, 1))

    assert p_BV[0].tolist() == pytest.approx(expected, abs=1e-3)


def test_weights_do_not_vanish_where_null_experts_are_far_ahead() -> None:
    gate = with_logits([2.0, 1.0], [500.0], k=2)

    p_BV = gate(torch.ones(1, 1))

    assert p_BV[0].tolist() == [1.0, 0.0]


def test_row_of_null_experts_alone_has_a_finite_gradient() -> None:
    gate = with_logits([2.0, 1.0], [4.0, 3.0], k=2).requires_grad_(True)

    gate(torch.ones(1, 1)).sum().backward()

    assert gate.weight_VD.grad is not None
    assert gate.weight_VD.grad.isfinite().all()


def test_null_experts_cost_nothing_and_add_nothing() -> None:
    torch.manual_seed(0)
    layer = MixtureConfig(gate=NullExpertsGateConfig(k=3, num_null=3), expert_hidden=(8,)).layer(
        experts={f"shared.{expert}": 0 for expert in range(4)}, gates={"ctr": 0}, mask_GE=[[True] * 4], in_features=5
    )
    x_BD = torch.randn(64, 5)

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        (h_BH,), use = layer([x_BD])

    p_BE = use.weights_BGE[:, 0]
    y_EBH = torch.stack(list(layer.experts([x_BD])))  # type: ignore[operator]
    torch.testing.assert_close(h_BH, torch.einsum("be,ebh->bh", p_BE, y_EBH))
    of_gate, of_pair = 2 * 64 * 5 * 7, 2 * 5 * 8
    assert counter.get_total_flops() == of_gate + of_pair * int((p_BE > 0).sum())
    assert 0 < (p_BE > 0).sum() < 64 * 3
