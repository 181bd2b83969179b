"""Gated linear units: the paper's equation, unit by unit."""

import math

import torch

from recmoe.moe.experts.gated import GatedExpert


def test_layer_equals_the_equation_unit_by_unit() -> None:
    torch.manual_seed(0)
    expert = GatedExpert(in_features=3, hidden=(4, 2), dropout=0.0).requires_grad_(False)
    x_BD = torch.randn(5, 3)

    y_BH = expert(x_BD)

    for x_D, y_H in zip(x_BD, y_BH, strict=True):
        values = x_D.tolist()
        for layer in expert.layers:
            weight, bias, width = layer.weight.tolist(), layer.bias.tolist(), layer.out_features // 2

            def product(row: int, weight: list[list[float]] = weight, bias: list[float] = bias) -> float:
                return sum(w * v for w, v in zip(weight[row], values, strict=True)) + bias[row]  # noqa: B023

            # Eq. 1: h(X) = (X · W + b) ⊗ σ(X · V + c)
            values = [product(unit) / (1 + math.exp(-product(width + unit))) for unit in range(width)]
        torch.testing.assert_close(y_H, torch.tensor(values))
