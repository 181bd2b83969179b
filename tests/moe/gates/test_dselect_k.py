"""DSelect-k gate: the paper's equations row by row; it decides for at most k experts as it trains."""

import math

import pytest
import torch

from recmoe.moe.gates.dselect_k import DSelectKGate, smooth_step
from recmoe.moe.gates.softmax import gate_logits


def gate_of(*, num_experts: int, k: int = 2, gamma: float = 1.0) -> DSelectKGate:
    torch.manual_seed(0)
    return DSelectKGate(in_features=3, num_experts=num_experts, k=k, gamma=gamma)


def step_by_hand(t: float, gamma: float) -> float:
    if t <= -gamma / 2:
        return 0.0
    if t >= gamma / 2:
        return 1.0
    return -2 / gamma**3 * t**3 + 3 / (2 * gamma) * t + 1 / 2


@pytest.mark.parametrize("num_experts", [1, 2, 3, 4, 5, 7, 8])
@pytest.mark.parametrize("gamma", [1.0, 3.0])
def test_weights_equal_the_equations_row_by_row(num_experts: int, gamma: float) -> None:
    gate = gate_of(num_experts=num_experts, gamma=gamma).requires_grad_(False)
    torch.nn.init.normal_(gate.bits_KMD)
    x_BD = torch.randn(6, 3)
    num_bits = max(1, math.ceil(math.log2(num_experts)))

    p_BV = gate(x_BD)

    for x_D, p_V in zip(x_BD, p_BV, strict=True):
        alpha = [math.exp(float(gate.shares_KD[k] @ x_D)) for k in range(2)]
        expected = [0.0] * num_experts
        for k in range(2):
            bits = [step_by_hand(float(gate.bits_KMD[k, m] @ x_D), gamma) for m in range(num_bits)]
            for code in range(2**num_bits):
                r = 1.0
                for m in range(num_bits):
                    r *= bits[m] if code >> m & 1 else 1 - bits[m]
                # Codes beyond the last expert begin again at the first.
                expected[code % num_experts] += alpha[k] / sum(alpha) * r
        torch.testing.assert_close(p_V, torch.tensor(expected))


def test_smooth_step_is_flat_at_both_ends_and_decided_beyond() -> None:
    t_N = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0], requires_grad=True)

    step_N = smooth_step(t_N, 2.0)
    step_N.sum().backward()

    assert step_N.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert t_N.grad is not None
    assert t_N.grad.tolist() == [0.0, 0.0, 0.75, 0.0, 0.0]


def test_gate_begins_with_even_shares() -> None:
    gate = gate_of(num_experts=4)

    assert gate(torch.randn(20, 3)).sub(0.25).abs().max() < 0.03


def test_selections_mix_to_the_weights() -> None:
    gate = gate_of(num_experts=5)
    x_BD = torch.randn(6, 3)

    selections = gate.selections(gate_logits(x_BD, gate.linear_form().weight_LD))

    torch.testing.assert_close(selections.experts_BKV.sum(2), torch.ones(6, 2))
    mixed_BV = torch.einsum("bk,bkv->bv", selections.shares_BK, selections.experts_BKV)
    torch.testing.assert_close(mixed_BV, gate(x_BD))


def test_trained_gate_finds_the_planted_experts_of_every_row_and_leaves_others_out() -> None:
    # Experts give fixed numbers; rows of positive x need the mean of the first two, others that of the last two.
    torch.manual_seed(1)
    x_BD = torch.randn(200, 3)
    x_BD[:, 0] = x_BD[:, 0].sign() * (0.5 + x_BD[:, 0].abs())
    y_V = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    is_first_B1 = x_BD[:, :1] > 0
    wanted = torch.where(is_first_B1, torch.tensor([0.5, 0.5]), torch.tensor([-0.5, -0.5]))
    gate = gate_of(num_experts=4)
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.02)

    for _ in range(400):
        loss = (gate(x_BD) @ y_V - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    p_BV = gate(x_BD).detach()
    assert loss.item() < 0.01
    assert ((p_BV > 0).sum(1) <= 2).float().mean() > 0.75
    assert p_BV.topk(2, dim=1).values.sum(1).min() > 0.9
    assert bool(((p_BV[:, :2].sum(1) > 0.5) == is_first_B1[:, 0]).all())
