"""Gumbel gate: a hard draw with the gradient of a soft one; the best expert in serving."""

import math

import torch
from torch.utils.flop_counter import FlopCounterMode

from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.gates.gumbel import GumbelGate, GumbelGateConfig
from recmoe.moe.gates.weighing import weigh_one
from recmoe.moe.linear import NO_GROUPS
from recmoe.moe.mixture import MixtureConfig


def gate_of(*, num_experts: int = 4, temperature: float = 0.7) -> GumbelGate:
    torch.manual_seed(0)
    return GumbelGate(in_features=3, num_experts=num_experts, temperature=temperature)


def layer_of(num_experts: int) -> ExpertLayer:
    torch.manual_seed(0)
    return MixtureConfig(expert_hidden=(8,), gate=GumbelGateConfig()).layer(
        experts={f"shared.{expert}": 0 for expert in range(num_experts)},
        gates={"task": 0},
        mask_GE=[[True] * num_experts],
        in_features=3,
    )


def test_draw_and_gradient_equal_the_equations_row_by_row() -> None:
    gate = gate_of()
    x_BD, slope_BV = torch.randn(6, 3), torch.randn(6, 4)

    torch.manual_seed(1)
    p_BV = gate(x_BD)
    (gradient_VD,) = torch.autograd.grad((p_BV * slope_BV).sum(), gate.weight_VD)

    torch.manual_seed(1)
    exponential_BV = torch.empty(6, 4).exponential_()
    expected_VD = torch.zeros(4, 3)
    for x_D, slope_V, draw_V, p_V in zip(x_BD, slope_BV, exponential_BV, p_BV, strict=True):
        # With U = exp(-draw), uniform, -log(-log U) is -log(draw).
        g = [-math.log(-math.log(math.exp(-draw.item()))) for draw in draw_V]
        z = [(gate.weight_VD[v] @ x_D).item() + g[v] for v in range(4)]
        assert p_V.tolist() == [float(v == max(range(4), key=lambda v: z[v])) for v in range(4)]
        # dy_v / dz_u of y = softmax(z / 0.7), whatever was drawn.
        total = sum(math.exp(value / 0.7) for value in z)
        y = [math.exp(value / 0.7) / total for value in z]
        for u in range(4):
            along_z = sum(slope_V[v].item() * y[v] * ((u == v) - y[u]) / 0.7 for v in range(4))
            expected_VD[u] += along_z * x_D
    torch.testing.assert_close(gradient_VD, expected_VD)


def test_experts_are_drawn_as_often_as_the_softmax_says() -> None:
    gate = gate_of(num_experts=3).requires_grad_(False)
    gate.weight_VD.copy_(torch.tensor([[math.log(6.0)], [math.log(3.0)], [0.0]]) * torch.ones(3) / 3)
    torch.manual_seed(1)

    share_V = gate(torch.ones(20_000, 3)).mean(0)

    torch.testing.assert_close(share_V, torch.tensor([0.6, 0.3, 0.1]), rtol=0, atol=0.015)


def test_logits_are_those_that_are_drawn_from_without_the_draw() -> None:
    gate = gate_of()
    x_BD = torch.randn(6, 3)

    logits_BV = weigh_one(gate, x_BD, NO_GROUPS).logits_BV

    torch.testing.assert_close(logits_BV, x_BD @ gate.weight_VD.t())


def test_served_row_goes_to_its_best_expert() -> None:
    gate = gate_of().eval()
    x_BD = torch.randn(50, 3)

    p_BV = gate(x_BD)

    assert torch.equal(p_BV.argmax(1), (x_BD @ gate.weight_VD.t()).argmax(1))
    assert torch.equal(p_BV.sort(1).values[:, 2:], torch.tensor([0.0, 1.0]).expand(50, 2))


def test_layer_computes_all_experts_in_training_and_one_per_row_in_serving() -> None:
    layer = layer_of(8)
    x_BD = torch.randn(40, 3)

    def flops() -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer([x_BD])
        return int(counter.get_total_flops())

    of_gate, of_an_expert = 2 * 40 * 3 * 8, 2 * 40 * 3 * 8
    assert flops() == of_gate + 8 * of_an_expert
    layer.eval()
    assert flops() == of_gate + of_an_expert


def test_gate_learns_from_an_expert_that_was_not_drawn() -> None:
    layer = layer_of(2)
    x_1D = torch.randn(1, 3)

    def mixed() -> tuple[torch.Tensor, torch.Tensor, int]:
        torch.manual_seed(2)
        (h_1H,), use = layer([x_1D])
        (gradient_VD,) = torch.autograd.grad(h_1H.sum(), layer.gates[0].weight_VD)
        return h_1H, gradient_VD, int(use.weights_BGE.argmin())

    h_1H, gradient_VD, not_drawn = mixed()
    layer.experts.biases_EO[0].data[not_drawn] += 1.0

    assert torch.equal(mixed()[0], h_1H)
    assert not torch.allclose(mixed()[1], gradient_VD)
