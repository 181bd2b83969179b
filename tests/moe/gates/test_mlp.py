"""MLP gate: what a linear gate cannot tell apart."""

import torch

from recmoe.moe.gates.mlp import MlpGate
from recmoe.moe.gates.softmax import SoftmaxGate


def test_weights_equal_the_network_row_by_row() -> None:
    torch.manual_seed(0)
    gate = MlpGate(in_features=3, num_experts=2, hidden=(4,), temperature=2.0)
    x_BD = torch.randn(5, 3)

    with torch.no_grad():
        p_BV = gate(x_BD)

    first, second = (gate.first.requires_grad_(False), gate.others[1].requires_grad_(False))
    for x_D, p_V in zip(x_BD, p_BV, strict=True):
        hidden = [max(0.0, float(w @ x_D + b)) for w, b in zip(first.weight, first.bias, strict=True)]
        logits = [float(w @ torch.tensor(hidden) + b) / 2.0 for w, b in zip(second.weight, second.bias, strict=True)]
        total = sum(torch.tensor(logit).exp() for logit in logits)
        torch.testing.assert_close(p_V, torch.stack([torch.tensor(logit).exp() / total for logit in logits]))


def test_it_learns_a_choice_that_no_linear_gate_can_make() -> None:
    x_BD = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    # The first expert where exactly one input is on.
    wanted_B = torch.tensor([0.0, 1.0, 1.0, 0.0])

    def loss_of(gate: torch.nn.Module) -> float:
        optimizer = torch.optim.Adam(gate.parameters(), lr=0.05)
        for _ in range(200):
            loss = torch.nn.functional.binary_cross_entropy(gate(x_BD)[:, 0], wanted_B)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    torch.manual_seed(0)
    assert loss_of(MlpGate(in_features=2, num_experts=2, hidden=(8,))) < 0.05
    assert loss_of(SoftmaxGate(in_features=2, num_experts=2)) > 0.6
