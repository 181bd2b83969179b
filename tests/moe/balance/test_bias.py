"""Biases for the choice: the paper's rule step by step, and the load that they even out."""

import torch

from recmoe.moe.balance.bias import BiasConfig, BiasUpdate
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.gates.top_k import TopKGate
from recmoe.moe.mixture import MixtureConfig


def layer_of(k: int, *, num_experts: int = 4) -> ExpertLayer:
    torch.manual_seed(0)
    layer = MixtureConfig.model_validate({"gate": {"kind": "top_k", "k": k}, "expert_hidden": [3]}).layer(
        experts={f"shared.{expert}": 0 for expert in range(num_experts)},
        gates={"ctr": 0},
        mask_GE=[[True] * num_experts],
        in_features=6,
    )
    BiasConfig().prepare(layer)
    return layer


def gate_in(layer: ExpertLayer) -> TopKGate:
    (gate,) = layer.gates
    assert isinstance(gate, TopKGate)
    return gate


def test_bias_decides_the_choice_and_leaves_the_weights_of_the_chosen() -> None:
    layer = layer_of(k=2)
    gate = gate_in(layer)
    gate.bias_V = torch.tensor([0.9, 0.0, 0.0, -0.2])
    x_BD = torch.randn(20, 6)

    p_BV = gate(x_BD)

    for x_D, p_V in zip(x_BD, p_BV, strict=True):
        scores_V = torch.softmax(gate.weight_VD @ x_D, dim=0)
        chosen = (scores_V + gate.bias_V).topk(2).indices
        expected_V = torch.zeros(4)
        expected_V[chosen] = scores_V[chosen] / scores_V[chosen].sum()
        torch.testing.assert_close(p_V, expected_V)
    assert (p_BV[:, 0] > 0).all()


def test_bias_of_zero_is_the_gate_without_one() -> None:
    layer = layer_of(k=2)
    gate = gate_in(layer)
    x_BD = torch.randn(20, 6)

    with_bias = gate(x_BD)
    gate.bias_V = None

    assert torch.equal(gate(x_BD), with_bias)


def test_step_moves_each_bias_by_the_sign_of_what_its_expert_lacks() -> None:
    layer = layer_of(k=1)
    gate = gate_in(layer)
    with torch.no_grad():
        gate.weight_VD.copy_(torch.eye(4, 6) * 5)
    # Of eight rows, expert 0 gets five, expert 1 two (an even share), expert 2 one, expert 3 none.
    x_BD = torch.eye(4, 6)[[0] * 5 + [1] * 2 + [2]]
    update = BiasUpdate(rate=0.01)

    violation = update([layer.route([x_BD])[1]])

    assert gate.bias_V is not None
    torch.testing.assert_close(gate.bias_V, torch.tensor([-0.01, 0.0, 0.01, 0.01]))
    assert violation.item() == 5 / 2 - 1
    assert not violation.requires_grad


def test_biases_even_out_a_gate_that_favours_one_expert() -> None:
    layer = layer_of(k=1)
    gate = gate_in(layer)
    x_BD = torch.cat([torch.randn(400, 5), torch.ones(400, 1)], dim=1)
    with torch.no_grad():
        gate.weight_VD[2, 5] = 1.5
    update = BiasUpdate(rate=0.002)

    violations = [update([layer.route([x_BD])[1]]).item() for _ in range(300)]

    assert violations[0] > 1.0
    assert violations[-1] < 0.1


def test_model_without_a_gate_that_chooses_has_nothing_to_move() -> None:
    layer = MixtureConfig().layer(experts={"shared.0": 0}, gates={"ctr": 0}, mask_GE=[[True]], in_features=6)

    BiasConfig().prepare(layer)

    assert BiasUpdate(rate=0.01)([layer.route([torch.randn(3, 6)])[1]]).item() == 0.0
