"""Target attention against a loop written from the paper."""

# R requests, L entries, C candidates, D width of an entry, Q width of a query, A width of a hidden layer

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from recmoe.sequence import TargetAttention

LENGTHS = [4, 0, 2]


def attention(
    *, query_features: int = 3, hidden: tuple[int, ...] = (5, 4), is_softmax: bool = False
) -> TargetAttention:
    torch.manual_seed(0)
    return TargetAttention(in_features=3, query_features=query_features, hidden=hidden, is_softmax=is_softmax)


def loop_from_the_paper(encoder: TargetAttention, histories: list[Tensor], query_RD: Tensor) -> Tensor:
    """Equation 3: v = Σ a(e, v_A) · e, where a reads [query, key, query - key, query · key]."""
    vectors = []
    for history_LD, query_D in zip(histories, query_RD, strict=True):
        scores = []
        for entry_D in history_LD:
            x = torch.cat([query_D, entry_D, query_D - entry_D, query_D * entry_D])
            x = encoder.first(x)
            for slope, linear in zip(encoder.slopes, encoder.later, strict=True):
                x = linear(torch.where(x > 0, x, slope * x))
            scores.append(x[0])
        weights = torch.stack(scores) if scores else torch.zeros(0)
        if encoder._is_softmax:
            weights = torch.softmax(weights, dim=0)
        total_D = torch.zeros(3)
        for weight, entry_D in zip(weights, history_LD, strict=True):
            total_D = total_D + weight * entry_D
        vectors.append(total_D)
    return torch.stack(vectors)


@pytest.mark.parametrize("is_softmax", [False, True], ids=["the paper's weights", "softmax"])
def test_attention_equals_loop_written_from_the_paper(is_softmax: bool) -> None:
    encoder = attention(is_softmax=is_softmax)
    history_RLD, query_RD = torch.randn(3, 4, 3), torch.randn(3, 3)
    mask_RL = torch.arange(4) < torch.tensor(LENGTHS)[:, None]

    vector_RD = encoder.attend(encoder.encode(history_RLD, mask_RL), query_RD, None)

    expected = loop_from_the_paper(
        encoder, [row[:length] for row, length in zip(history_RLD, LENGTHS, strict=True)], query_RD
    )
    torch.testing.assert_close(vector_RD, expected, rtol=0, atol=1e-6)


def test_a_query_of_another_width_is_mapped_first() -> None:
    encoder = attention(query_features=7)
    history_RLD, query_RQ, mask_RL = torch.randn(2, 4, 3), torch.randn(2, 7), torch.ones(2, 4, dtype=torch.bool)

    vector_RD = encoder.attend(encoder.encode(history_RLD, mask_RL), query_RQ, None)

    assert encoder.query_map is not None
    expected = loop_from_the_paper(encoder, list(history_RLD), functional.linear(query_RQ, encoder.query_map.weight))
    torch.testing.assert_close(vector_RD, expected, rtol=0, atol=1e-6)


def test_the_papers_weights_need_not_sum_to_one() -> None:
    encoder = attention(hidden=(4,))
    entry_RLD = torch.ones(2, 4, 3)
    mask_RL = torch.tensor([[True, False, False, False], [True, True, True, True]])

    vector_RD = encoder.attend(encoder.encode(entry_RLD, mask_RL), torch.ones(2, 3), None)

    torch.testing.assert_close(vector_RD[1], 4 * vector_RD[0])


def test_only_the_product_of_candidate_and_entry_is_multiplied_per_pair() -> None:
    encoder = attention(hidden=(5,))
    history_RLD, mask_RL = torch.randn(1, 50, 3), torch.ones(1, 50, dtype=torch.bool)

    with FlopCounterMode(display=False) as counter:
        encoder.attend(encoder.encode(history_RLD, mask_RL), torch.randn(200, 3), torch.zeros(200, dtype=torch.int64))

    per_request, per_candidate, per_pair = 50 * 3 * 5, 200 * 3 * 5, 200 * 50 * (3 * 5 + 5 + 3)
    assert counter.get_total_flops() == 2 * (per_request + per_candidate + per_pair)
