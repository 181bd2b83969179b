"""Noisy top-k gate: the paper's equations row by row, noise in training only."""

import math

import torch
from torch.nn import functional

from recmoe.moe.gates.noisy_top_k import NoisyTopKGate


def gate_of(k: int = 2) -> NoisyTopKGate:
    torch.manual_seed(0)
    gate = NoisyTopKGate(in_features=3, num_experts=4, k=k)
    torch.nn.init.normal_(gate.noise_VD)
    return gate.requires_grad_(False)


def test_training_weights_equal_the_equations_row_by_row() -> None:
    gate = gate_of()
    x_BD = torch.randn(6, 3)

    torch.manual_seed(1)
    p_BV = gate(x_BD)

    torch.manual_seed(1)
    normal_BV = torch.randn(6, 4)
    for x_D, normal_V, p_V in zip(x_BD, normal_BV, p_BV, strict=True):
        # Eq. 4: H(x)_i = (x · W_g)_i + StandardNormal() · Softplus((x · W_noise)_i)
        h = [
            float(gate.weight_VD[v] @ x_D + normal_V[v] * functional.softplus(gate.noise_VD[v] @ x_D)) for v in range(4)
        ]
        # Eq. 5: KeepTopK, the others are −∞; eq. 3: softmax.
        kept = sorted(range(4), key=lambda v: -h[v])[:2]
        total = sum(math.exp(h[v]) for v in kept)
        expected = [math.exp(h[v]) / total if v in kept else 0.0 for v in range(4)]
        torch.testing.assert_close(p_V, torch.tensor(expected))


def test_noise_changes_the_choice_in_training_and_never_afterwards() -> None:
    gate = gate_of(k=1)
    x_BD = torch.randn(200, 3)

    trained = [gate(x_BD).argmax(1) for _ in range(2)]
    gate.eval()
    served = [gate(x_BD).argmax(1) for _ in range(2)]

    assert (trained[0] != trained[1]).any()
    assert torch.equal(served[0], served[1])


def test_every_expert_gets_rows_while_it_trains_even_where_all_logits_favour_one() -> None:
    gate = gate_of(k=1)
    gate.weight_VD.zero_()
    gate.weight_VD[0] = 0.1
    gate.noise_VD.zero_()
    x_BD = torch.ones(500, 3)

    num_rows_V = torch.bincount(gate(x_BD).argmax(1), minlength=4)

    assert num_rows_V.min() > 20
