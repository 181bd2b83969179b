"""Normalised experts: the equation, unit by unit, and outputs of one scale."""

import math

import torch

from recmoe.moe.experts.normalized import NormalizedExpert


def test_layer_equals_the_equation_unit_by_unit() -> None:
    torch.manual_seed(0)
    expert = NormalizedExpert(in_features=3, hidden=(4, 2), dropout=0.0).requires_grad_(False)
    for norm in expert.norms:
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    x_BD = torch.randn(5, 3)

    y_BH = expert(x_BD)

    for x_D, y_H in zip(x_BD, y_BH, strict=True):
        values = x_D.tolist()
        for layer, norm in zip(expert.layers, expert.norms, strict=True):
            weights, biases = layer.weight.tolist(), layer.bias.tolist()
            z = [
                sum(w * v for w, v in zip(row, values, strict=True)) + b for row, b in zip(weights, biases, strict=True)
            ]
            mean = sum(z) / len(z)
            variance = sum((unit - mean) ** 2 for unit in z) / len(z)
            scaled = [(unit - mean) / math.sqrt(variance + 1e-5) for unit in z]
            moved = [g * unit + b for g, unit, b in zip(norm.weight.tolist(), scaled, norm.bias.tolist(), strict=True)]
            values = [unit / (1 + math.exp(-unit)) for unit in moved]
        torch.testing.assert_close(y_H, torch.tensor(values))


def test_experts_whose_weights_differ_in_size_give_numbers_of_one_scale() -> None:
    torch.manual_seed(0)
    small, large = (NormalizedExpert(in_features=16, hidden=(32,), dropout=0.0) for _ in range(2))
    large.load_state_dict(
        {name: 100 * weight for name, weight in large.state_dict().items() if "layers" in name}, strict=False
    )
    x_BD = torch.randn(200, 16)

    ratio = large(x_BD).std() / small(x_BD).std()

    assert 0.8 < ratio < 1.25
    assert (small(x_BD) != 0).all()
