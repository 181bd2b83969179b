"""Experts with a joint backward pass: equal to networks of their own."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from recmoe.moe.experts.joint import joint_experts

Layers = list[Tensor]


def layers(*widths: int, dtype: torch.dtype) -> tuple[Layers, Layers]:
    torch.manual_seed(0)
    pairs = list(pairwise(widths))
    weights = [torch.randn(3, width, num_inputs).div(num_inputs**0.5) for num_inputs, width in pairs]
    biases = [torch.randn(3, width).div(4) for _, width in pairs]
    return [w.to(dtype).requires_grad_() for w in weights], [b.to(dtype).requires_grad_() for b in biases]


def one_by_one(x_BD: Tensor, weights: Layers, biases: Layers) -> list[Tensor]:
    outputs = []
    for expert in range(3):
        y = x_BD
        for weight_EOD, bias_EO in zip(weights, biases, strict=True):
            y = torch.relu(y @ weight_EOD[expert].t() + bias_EO[expert])
        outputs.append(y)
    return outputs


def gradients(outputs: list[Tensor], wanted: list[Tensor]) -> list[Tensor]:
    factors = [torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y) for y in outputs]
    loss = sum((y * factor).sum() for y, factor in zip(outputs, factors, strict=True))
    assert isinstance(loss, Tensor)
    return list(torch.autograd.grad(loss, wanted))


@pytest.mark.parametrize("widths", [(5, 8), (5, 8, 4), (5, 8, 6, 4)])
@pytest.mark.parametrize("num_rows", [0, 1, 50])
def test_outputs_and_gradients_are_those_of_networks_of_their_own(num_rows: int, widths: tuple[int, ...]) -> None:
    weights, biases = layers(*widths, dtype=torch.float32)
    x_BD = torch.randn(num_rows, 5, requires_grad=True)

    outputs = joint_experts(x_BD, weights_EOD=weights, biases_EO=biases)

    expected = one_by_one(x_BD, weights, biases)
    wanted = [x_BD, *weights, *biases]
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(outputs, wanted), gradients(expected, wanted), rtol=1e-5, atol=1e-5)


def test_products_of_bfloat16_stay_within_its_accuracy() -> None:
    weights, biases = layers(32, 16, 8, dtype=torch.bfloat16)
    x_BD = torch.randn(200, 32).bfloat16().requires_grad_()

    outputs = joint_experts(x_BD, weights_EOD=weights, biases_EO=biases)

    wanted = [x_BD, *weights, *biases]
    exact = [tensor.detach().double().requires_grad_() for tensor in wanted]
    expected = one_by_one(exact[0], exact[1:3], exact[3:])
    assert {y.dtype for y in outputs} == {torch.bfloat16}
    for ours, theirs in zip(
        [*outputs, *gradients(outputs, wanted)], [*expected, *gradients(expected, exact)], strict=True
    ):
        assert (ours - theirs).norm() < 0.05 * theirs.norm()


def test_input_that_needs_no_gradient_costs_none() -> None:
    weights, biases = layers(5, 8, 4, dtype=torch.float32)
    products = {}
    for needs_gradient in (True, False):
        outputs = joint_experts(torch.randn(6, 5).requires_grad_(needs_gradient), weights_EOD=weights, biases_EO=biases)
        with torch.profiler.profile() as profile:
            gradients(outputs, weights)
        products[needs_gradient] = sum(event.name == "aten::mm" for event in profile.events())

    # Of three experts: two products each in the second layer; one for all weights of the first, one for its input.
    assert products == {True: 8, False: 7}


def test_expert_whose_output_nobody_uses_gets_a_zero_gradient() -> None:
    weights, biases = layers(5, 8, 4, dtype=torch.float32)

    outputs = joint_experts(torch.randn(6, 5), weights_EOD=weights, biases_EO=biases)
    (gradient_EOD,) = torch.autograd.grad(outputs[1].sum(), weights[0])

    assert gradient_EOD[1].abs().sum() > 0
    assert gradient_EOD[[0, 2]].abs().sum() == 0
