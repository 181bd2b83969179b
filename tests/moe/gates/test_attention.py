"""Attention gate: the paper's equations row by row; what one expert's logit says about another."""

import math

import torch

from recmoe.moe.gates.attention import AttentionGate
from recmoe.moe.gates.weighing import weigh_one
from recmoe.moe.linear import NO_GROUPS


def gate_of(*, num_experts: int = 4, k: int = 2) -> AttentionGate:
    torch.manual_seed(0)
    gate = AttentionGate(in_features=3, num_experts=num_experts, k=k).requires_grad_(False)
    for weight_VD in gate.parameters():
        torch.nn.init.normal_(weight_VD)
    return gate


def test_weights_equal_the_equations_row_by_row() -> None:
    gate = gate_of()
    x_BD = torch.randn(6, 3)

    p_BV, logits_BV, *_ = weigh_one(gate, x_BD, NO_GROUPS)

    assert logits_BV is not None
    for x_D, p_V, logits_V in zip(x_BD, p_BV, logits_BV, strict=True):
        q, k, v = ([float(w_D @ x_D) for w_D in weight] for weight in (gate.query_VD, gate.key_VD, gate.value_VD))
        attended = []
        for expert in range(4):
            total = sum(math.exp(q[expert] * k[other]) for other in range(4))
            attended.append(sum(math.exp(q[expert] * k[other]) / total * v[other] for other in range(4)))
        torch.testing.assert_close(logits_V, torch.tensor(attended))
        kept = sorted(range(4), key=lambda expert: -attended[expert])[:2]
        total = sum(math.exp(attended[expert]) for expert in kept)
        expected = [math.exp(attended[expert]) / total if expert in kept else 0.0 for expert in range(4)]
        torch.testing.assert_close(p_V, torch.tensor(expected))


def test_value_of_one_expert_moves_the_shares_of_those_that_attend_to_it() -> None:
    gate = gate_of(num_experts=3, k=3)
    x_1D = torch.ones(1, 3)
    # Experts 0 and 1 attend to expert 2 alone, expert 2 to expert 0 alone.
    gate.query_VD.copy_(torch.tensor([[20.0], [20.0], [-20.0]]) / 3 * torch.ones(3))
    gate.key_VD.copy_(torch.tensor([[-20.0], [0.0], [20.0]]) / 3 * torch.ones(3))
    gate.value_VD.copy_(torch.tensor([[0.0], [5.0], [math.log(2.0)]]) / 3 * torch.ones(3))

    p_V = gate(x_1D)[0]

    # Attended values log 2, log 2 and 0: two to two to one.
    torch.testing.assert_close(p_V, torch.tensor([0.4, 0.4, 0.2]))
