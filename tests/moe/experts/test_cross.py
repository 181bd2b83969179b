"""Cross networks: the paper's equation number by number, and products that they find."""

import pytest
import torch

from recmoe.moe.experts.cross import CrossExpert


@pytest.mark.parametrize("rank", [None, 2])
def test_layers_equal_the_equation_number_by_number(rank: int | None) -> None:
    torch.manual_seed(0)
    expert = CrossExpert(in_features=3, out_features=2, num_layers=2, rank=rank, dropout=0.0).requires_grad_(False)
    x_BD = torch.randn(5, 3)

    y_BH = expert(x_BD)

    for x_D, y_H in zip(x_BD, y_BH, strict=True):
        crossed = x_D.clone()
        for layer in range(2):
            up = expert.ups[layer]
            matrix = up.weight if rank is None else up.weight @ expert.downs[layer].weight
            # Eq. 1: x_{l+1} = x_0 ⊙ (W_l · x_l + b_l) + x_l
            crossed = torch.stack([x_D[d] * (matrix[d] @ crossed + up.bias[d]) + crossed[d] for d in range(3)])
        torch.testing.assert_close(y_H, torch.relu(expert.map.weight @ crossed + expert.map.bias))


def test_one_layer_is_a_polynomial_of_degree_two() -> None:
    torch.manual_seed(0)
    expert = CrossExpert(in_features=2, out_features=1, num_layers=1, rank=None, dropout=0.0).requires_grad_(False)
    expert.ups[0].weight.copy_(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    expert.ups[0].bias.zero_()
    expert.map.weight.copy_(torch.tensor([[1.0, 0.0]]))
    expert.map.bias.zero_()

    y_B1 = expert(torch.tensor([[2.0, 3.0], [0.5, 4.0]]))

    # a · b + a
    assert y_B1[:, 0].tolist() == [8.0, 2.5]
