"""Cosine gate: the paper's score row by row; directions count, lengths do not."""

import math

import pytest
import torch

from recmoe.moe.gates.cosine import CosineGate
from recmoe.moe.gates.weighing import weigh_one
from recmoe.moe.linear import NO_GROUPS


def gate_of(*, k: int | None, num_experts: int = 4) -> CosineGate:
    torch.manual_seed(0)
    return CosineGate(in_features=5, num_experts=num_experts, k=k, width=3, temperature=0.3)


@pytest.mark.parametrize("k", [1, 2, None], ids=["one expert", "two experts", "all experts"])
def test_weights_equal_the_equations_row_by_row(k: int | None) -> None:
    gate = gate_of(k=k).requires_grad_(False)
    x_BD = torch.randn(6, 5)

    p_BV, logits_BV, *_ = weigh_one(gate, x_BD, NO_GROUPS)

    assert logits_BV is not None
    for x_D, p_V, logits_V in zip(x_BD, p_BV, logits_BV, strict=True):
        row_P = [float(w_D @ x_D) for w_D in gate.weight_PD]
        score = []
        for e_P in gate.experts_VP.tolist():
            product = sum(r * e for r, e in zip(row_P, e_P, strict=True))
            score.append(product / math.hypot(*row_P) / math.hypot(*e_P))
        total = sum(math.exp(s / 0.3) for s in score)
        kept = sorted(range(4), key=lambda v: -score[v])[:k]
        expected = [math.exp(score[v] / 0.3) / total if v in kept else 0.0 for v in range(4)]
        torch.testing.assert_close(p_V, torch.tensor(expected))
        torch.testing.assert_close(logits_V, torch.tensor(score) / 0.3)


def test_only_directions_count() -> None:
    gate = gate_of(k=2).requires_grad_(False)
    x_BD = torch.randn(6, 5)
    before_BV = gate(x_BD)

    gate.experts_VP[1] *= 100.0

    torch.testing.assert_close(gate(0.01 * x_BD), before_BV)


def test_gate_learns_from_its_choice_of_one_expert() -> None:
    gate = gate_of(k=1)

    gate(torch.randn(20, 5)).sum().backward()

    assert all(parameter.grad is not None and parameter.grad.any() for parameter in gate.parameters())


@pytest.mark.parametrize(("k", "is_sparse"), [(1, True), (4, False), (9, False), (None, False)])
def test_gate_is_sparse_where_it_leaves_experts_out(k: int | None, is_sparse: bool) -> None:
    gate = gate_of(k=k)

    assert (gate.is_sparse, gate.sums_to_one) == (is_sparse, not is_sparse)


def test_temperature_falls_where_decided_choices_pay_and_ends_at_the_lowest() -> None:
    gate = gate_of(k=None)
    optimizer = torch.optim.SGD([gate.log_temperature], lr=1.0)
    x_BD = torch.randn(50, 5)
    best_BV = torch.nn.functional.one_hot(gate(x_BD).argmax(1), 4)

    for _ in range(50):
        loss = (1.0 - (gate(x_BD) * best_BV).sum(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    learned = gate.log_temperature.exp().item()
    gate.log_temperature.data.fill_(-500.0)
    lowest_BV = gate(x_BD)

    assert learned < 0.15
    gate.log_temperature.data.fill_(math.log(0.01))
    torch.testing.assert_close(lowest_BV, gate(x_BD))
