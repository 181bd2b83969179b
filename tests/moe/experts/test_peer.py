"""PEER: the paper's formula over all neurons, the retrieval by halves, and what it skips."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from recmoe.config import config_from_dict
from recmoe.errors import ConfigError
from recmoe.moe.experts.peer import PeerExpert, PeerExpertConfig, product_top_k


def expert_of(*, num_neurons: int = 25, num_heads: int = 2, k: int = 3, in_features: int = 4) -> PeerExpert:
    torch.manual_seed(0)
    expert = PeerExpert(
        in_features=in_features,
        out_features=2,
        num_neurons=num_neurons,
        num_heads=num_heads,
        k=k,
        query=6,
        dropout=0.0,
    )
    return expert.requires_grad_(False)


def test_expert_equals_a_loop_that_scores_every_neuron() -> None:
    expert = expert_of()
    torch.nn.init.normal_(expert.norm.weight)
    torch.nn.init.normal_(expert.norm.bias)
    first, second = expert.keys_2SQ
    x_BD = torch.randn(6, 4)

    y_BH = expert(x_BD)

    for x_D, y_H in zip(x_BD, y_BH, strict=True):
        expected = torch.zeros(2)
        for head in range(2):
            projected = expert.query.weight[head * 6 : head * 6 + 6] @ x_D
            halves = []
            for half in projected.split(3):
                variance = ((half - half.mean()) ** 2).mean()
                scaled = (half - half.mean()) / torch.sqrt(variance + 1e-5)
                halves.append(scaled * expert.norm.weight + expert.norm.bias)
            query = torch.cat(halves)
            scores = [float(query @ torch.cat([first[neuron // 5], second[neuron % 5]])) for neuron in range(25)]
            # Algorithm 1: I = top-k of q · k_i; f(x) = Σ_I softmax_I(q · k_i) · e_i(x), e_i(x) = σ(u_i · x) v_i
            chosen = sorted(range(25), key=lambda neuron: -scores[neuron])[:3]
            total = sum(math.exp(scores[neuron]) for neuron in chosen)
            for neuron in chosen:
                share = math.exp(scores[neuron]) / total
                expected += share * max(float(expert.down_ND[neuron] @ x_D), 0.0) * expert.up_NH[neuron]
        torch.testing.assert_close(y_H, expected)


@pytest.mark.parametrize("k", [1, 2, 7, 12])
def test_best_of_both_halves_hold_the_best_of_the_square(k: int) -> None:
    torch.manual_seed(0)
    halves_BM2S = torch.randn(50, 2, 2, 12)

    sums_BMK, place_BMK = product_top_k(halves_BM2S, k)

    square_BMN = (halves_BM2S[:, :, 0, :, None] + halves_BM2S[:, :, 1, None, :]).flatten(2)
    expected = square_BMN.topk(k, dim=2)
    torch.testing.assert_close(sums_BMK, expected.values)
    assert torch.equal(place_BMK, expected.indices)


def test_best_of_a_drawn_square_are_found() -> None:
    halves_BM2S = torch.tensor([[[[0.1, 0.9, 0.5], [0.8, 0.2, 0.6]]]])

    sums_BMK, place_BMK = product_top_k(halves_BM2S, 2)

    torch.testing.assert_close(sums_BMK, torch.tensor([[[1.7, 1.5]]]))
    assert place_BMK.tolist() == [[[3, 5]]]


def test_hundred_times_the_neurons_cost_ten_times_the_keys_and_nothing_else() -> None:
    x_BD = torch.randn(8, 4)
    flops = {}
    for num_neurons in (100, 10_000):
        expert = expert_of(num_neurons=num_neurons)
        with FlopCounterMode(display=False) as counter:
            expert(x_BD)
        flops[num_neurons] = counter.get_total_flops()

    # A product of two numbers and a sum, for 8 rows, 2 heads and 2 halves of 3 numbers: 90 keys more a half.
    assert flops[10_000] - flops[100] == 2 * 8 * 2 * 2 * 3 * 90


def test_only_neurons_that_a_row_retrieves_are_moved_by_it() -> None:
    expert = expert_of().requires_grad_()
    x_BD = torch.randn(3, 4)

    expert(x_BD).square().sum().backward()

    _, neuron_BMK = expert.retrieve(x_BD)
    assert expert.up_NH.grad is not None
    moved = set(expert.up_NH.grad.abs().sum(dim=1).nonzero().flatten().tolist())
    assert moved
    assert moved <= set(neuron_BMK.flatten().tolist())


def test_row_retrieves_as_many_neurons_as_a_half_has_keys_where_it_asks_for_more() -> None:
    expert = expert_of(num_neurons=4, k=16)

    _, neuron_BMK = expert.retrieve(torch.randn(3, 4))

    assert neuron_BMK.shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"num_neurons": 1000}, r"num_neurons: .*neurons lie in a square, and 1000 is none; set 961 or 1024"),
        ({"query": 7}, r"query: .*a query has two halves of one width, and 7 is odd; set it to 8"),
    ],
)
def test_sizes_that_do_not_fit_say_what_does(section: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_dict(PeerExpertConfig, section)
