"""The transformer over a history against a loop written from the papers."""

# R requests, L entries, C candidates, D width of an entry, Q width of a query, S width of a state

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from recmoe.config import all_problems
from recmoe.sequence import HistoryTransformer, TransformerConfig
from recmoe.sequence.recency import RecencyBias

LENGTHS = [4, 0, 2]


def transformer(*, has_ages: bool, max_length: int = 4) -> HistoryTransformer:
    torch.manual_seed(0)
    encoder = HistoryTransformer(
        in_features=3,
        query_features=5,
        max_length=max_length,
        has_ages=has_ages,
        width=6,
        num_heads=2,
        num_layers=2,
        hidden=7,
    )
    for name, parameter in encoder.named_parameters():
        if "bias." in name:
            nn.init.normal_(parameter)
    return encoder


def loop_from_the_papers(encoder: Any, history_LD: Tensor, ages_L: Tensor | None, query_Q: Tensor) -> Tensor:
    """Entry by entry and head by head: causal attention, network, and the candidate's attention to the states."""
    states = [encoder.into(encoder.entry_norm(entry_D)) for entry_D in history_LD]
    for layer in encoder.layers:
        normed = [layer.attention_norm(state) for state in states]
        projected = [layer.query_key_value(state).split(6) for state in normed]
        read = []
        for reader in range(len(states)):
            seen = range(reader + 1)
            between = [None if ages_L is None else float(ages_L[entry] - ages_L[reader]) for entry in seen]
            read.append(
                attention_loop(
                    projected[reader][0],
                    [projected[entry][1] for entry in seen],
                    [projected[entry][2] for entry in seen],
                    [bias_of(layer.bias, reader - entry, between[entry]) for entry in seen],
                )
            )
        states = [state + layer.out(part) for state, part in zip(states, read, strict=True)]
        states = [state + layer.network(layer.network_norm(state)) for state in states]
    if not states:
        return torch.zeros(6)
    pairs = [encoder.key_value(encoder.norm(state)).split(6) for state in states]
    biases = [
        bias_of(encoder.bias, len(states) - 1 - entry, None if ages_L is None else float(ages_L[entry]))
        for entry in range(len(states))
    ]
    result: Tensor = encoder.out(
        attention_loop(encoder.query(encoder.query_norm(query_Q)), [k for k, _ in pairs], [v for _, v in pairs], biases)
    )
    return result


def attention_loop(query_S: Tensor, keys: list[Tensor], values: list[Tensor], biases: list[Tensor]) -> Tensor:
    heads = []
    for head, part in enumerate((slice(0, 3), slice(3, 6))):
        scores = [query_S[part] @ key[part] / math.sqrt(3) + bias[head] for key, bias in zip(keys, biases, strict=True)]
        shares = torch.softmax(torch.stack(scores), dim=0)
        heads.append(sum(share * value[part] for share, value in zip(shares, values, strict=True)))
    return torch.cat(heads)  # type: ignore[arg-type]


def bias_of(bias: RecencyBias, steps: int, seconds: float | None) -> Tensor:
    number = bias.position_PN[min(steps, len(bias.position_PN) - 1)]
    return number if seconds is None else number + bias.time_TN[int(math.log2(1 + seconds))]  # type: ignore[index]


@pytest.mark.parametrize("max_length", [4, 2], ids=["all positions", "far positions share one"])
@pytest.mark.parametrize("has_ages", [True, False], ids=["with times", "without times"])
def test_transformer_equals_loop_written_from_the_papers(has_ages: bool, max_length: int) -> None:
    encoder = transformer(has_ages=has_ages, max_length=max_length)
    history_RLD, query_RQ = torch.randn(3, 4, 3), torch.randn(3, 5)
    ages_RL = torch.tensor([[9e6, 4000.0, 70.0, 0.0], [0.0, 0.0, 0.0, 0.0], [100.0, 6.5, 0.0, 0.0]])
    mask_RL = torch.arange(4) < torch.tensor(LENGTHS)[:, None]

    vector_RS = encoder.attend(encoder.encode(history_RLD, mask_RL, ages_RL if has_ages else None), query_RQ, None)

    expected = [
        loop_from_the_papers(encoder, history_RLD[row, :length], ages_RL[row] if has_ages else None, query_RQ[row])
        for row, length in enumerate(LENGTHS)
    ]
    torch.testing.assert_close(vector_RS, torch.stack(expected), rtol=0, atol=1e-5)


def test_an_entry_reads_none_after_it() -> None:
    encoder = transformer(has_ages=False)
    history_RLD, mask_RL = torch.randn(1, 4, 3), torch.ones(1, 4, dtype=torch.bool)
    changed_RLD = history_RLD.clone()
    changed_RLD[0, 2] *= -1.0

    keys, changed = (encoder.encode(history, mask_RL).parts[0][0] for history in (history_RLD, changed_RLD))

    assert torch.equal(keys[:2], changed[:2])
    assert not functional.cosine_similarity(keys[2:], changed[2:]).isclose(torch.ones(2)).any()


def test_order_matters_by_the_causal_mask_alone() -> None:
    encoder = transformer(has_ages=False)
    history_RLD, mask_RL = torch.randn(1, 4, 3), torch.ones(1, 4, dtype=torch.bool)
    query_CQ = torch.randn(1, 5)

    forwards, backwards = (
        encoder.attend(encoder.encode(history, mask_RL), query_CQ, None)
        for history in (history_RLD, history_RLD.flip(1))
    )

    assert not torch.allclose(forwards, backwards)


def test_width_that_heads_do_not_divide_is_a_problem() -> None:
    problems = all_problems(TransformerConfig(width=6, heads=4))

    assert problems == [("heads", "a width of 6 does not fall into 4 heads of equal width")]


def test_spans_of_time_double() -> None:
    bias = RecencyBias(num_heads=1, max_length=1, has_ages=True)
    assert bias.time_TN is not None
    bias.time_TN.data.copy_(torch.arange(48.0)[:, None])

    found = bias(torch.zeros(7, dtype=torch.int64), torch.tensor([-5.0, 0.9, 1.0, 2.9, 3.0, 86400.0, 1e30]))

    assert found[:, 0].tolist() == [0, 0, 1, 1, 2, 16, 47]
