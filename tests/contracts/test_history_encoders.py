"""One contract for every encoder of histories of the union."""

# R requests, L entries of a history, C candidates, D width of an entry, Q width of a query

from typing import get_args

import pytest
import torch
from pydantic import BaseModel, TypeAdapter
from torch import Tensor, nn

from recmoe.sequence import HistoryEncoderConfig

CONFIGS = [config_class() for config_class in get_args(get_args(HistoryEncoderConfig)[0])]
every_encoder = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
D, Q, LENGTH = 6, 4, 5
LENGTHS = [5, 0, 2, 1]
"""A full history, an empty one and others."""


def encoder_of(config: HistoryEncoderConfig, *, seed: int = 0, query_features: int = Q) -> nn.Module:
    torch.manual_seed(seed)
    encoder: nn.Module = config.build(in_features=D, query_features=query_features, max_length=LENGTH, has_ages=True)
    # Biases begin at zero, where they cannot show whether they are read.
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.5)
    return encoder


def histories(lengths: list[int] = LENGTHS, *, room: int = LENGTH) -> tuple[Tensor, Tensor, Tensor]:
    """history_RLD, mask_RL and ages_RL, the entries in front."""
    random = torch.Generator().manual_seed(1)
    mask_RL = torch.arange(room) < torch.tensor(lengths)[:, None]
    ages_RL = torch.rand(len(lengths), LENGTH, generator=random).mul(1e5).sort(dim=1, descending=True).values
    history_RLD = torch.randn(len(lengths), LENGTH, D, generator=random)
    extra = (0, 0, 0, room - LENGTH)
    return nn.functional.pad(history_RLD, extra), mask_RL, nn.functional.pad(ages_RL, (0, room - LENGTH))


def queries(num_candidates: int) -> Tensor:
    return torch.randn(num_candidates, Q, generator=torch.Generator().manual_seed(2))


def vectors(encoder: nn.Module, history: tuple[Tensor, Tensor, Tensor], query_CQ: Tensor) -> Tensor:
    """One candidate per request."""
    result: Tensor = encoder.attend(encoder.encode(*history), query_CQ, None)
    return result


@every_encoder
def test_kind_alone_is_a_config_that_works(config: HistoryEncoderConfig) -> None:
    parsed = TypeAdapter(HistoryEncoderConfig).validate_python({"kind": config.kind})

    assert parsed == config
    assert isinstance(parsed, BaseModel)


@every_encoder
@pytest.mark.parametrize("query_features", [Q, D])
def test_every_candidate_gets_a_vector(config: HistoryEncoderConfig, query_features: int) -> None:
    encoder = encoder_of(config, query_features=query_features)

    vector_RH = vectors(encoder, histories(), torch.randn(len(LENGTHS), query_features))

    assert vector_RH.shape == (len(LENGTHS), encoder.out_features)
    assert vector_RH.dtype == torch.float32


@every_encoder
def test_encoder_says_whether_it_reads_the_candidate(config: HistoryEncoderConfig) -> None:
    encoder = encoder_of(config)
    history = histories([5, 5])

    one, other = (vectors(encoder, history, query_CQ) for query_CQ in (queries(2), -queries(2)))

    assert encoder.reads_candidate != torch.equal(one, other)


@every_encoder
def test_an_encoder_that_reads_no_candidate_needs_none(config: HistoryEncoderConfig) -> None:
    encoder = encoder_of(config)
    encoded = encoder.encode(*histories())

    if encoder.reads_candidate:
        with pytest.raises(AssertionError, match="candidate"):
            encoder.attend(encoded, None, None)
    else:
        assert torch.equal(encoder.attend(encoded, None, None), encoder.attend(encoded, queries(4), None))


@every_encoder
def test_an_empty_history_is_zero(config: HistoryEncoderConfig) -> None:
    encoder = encoder_of(config)

    vector_RH = vectors(encoder, histories(), queries(len(LENGTHS)))

    assert [bool(vector_H.any()) for vector_H in vector_RH] == [length > 0 for length in LENGTHS]


@every_encoder
@pytest.mark.parametrize("room", [1, LENGTH])
def test_empty_histories_alone_give_zeros_and_finite_gradients(config: HistoryEncoderConfig, room: int) -> None:
    encoder = encoder_of(config)
    history_RLD, mask_RL, ages_RL = (part[:, :room] for part in histories([0, 0]))

    vector_RH = vectors(encoder, (history_RLD.requires_grad_(), mask_RL, ages_RL), queries(2))
    vector_RH.sum().backward()

    assert not vector_RH.any()
    # A weight without a gradient would stop the workers of a job that has several.
    gradients = [history_RLD.grad, *(parameter.grad for parameter in encoder.parameters())]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


@every_encoder
@pytest.mark.parametrize("rubbish", [1e4, float("nan"), float("inf")], ids=str)
def test_what_stands_in_padding_never_matters(config: HistoryEncoderConfig, rubbish: float) -> None:
    encoder = encoder_of(config)
    history_RLD, mask_RL, ages_RL = histories()
    dirty_RLD = history_RLD.masked_fill(~mask_RL[..., None], rubbish).requires_grad_()
    dirty_RL = ages_RL.masked_fill(~mask_RL, rubbish)
    clean_RLD = history_RLD.clone().requires_grad_()

    dirty = vectors(encoder, (dirty_RLD, mask_RL, dirty_RL), queries(len(LENGTHS)))
    clean = vectors(encoder, (clean_RLD, mask_RL, ages_RL), queries(len(LENGTHS)))

    assert torch.equal(dirty, clean)
    dirty_gradients = torch.autograd.grad(
        dirty.square().sum(), [dirty_RLD, *encoder.parameters()], allow_unused=True, materialize_grads=True
    )
    clean_gradients = torch.autograd.grad(
        clean.square().sum(), [clean_RLD, *encoder.parameters()], allow_unused=True, materialize_grads=True
    )
    assert all(torch.equal(found, expected) for found, expected in zip(dirty_gradients, clean_gradients, strict=True))


@every_encoder
def test_more_padding_changes_nothing(config: HistoryEncoderConfig) -> None:
    encoder = encoder_of(config)

    wide, narrow = (vectors(encoder, histories(room=room), queries(len(LENGTHS))) for room in (LENGTH + 4, LENGTH))

    torch.testing.assert_close(wide, narrow, rtol=0, atol=1e-5)


@every_encoder
def test_padding_may_stand_in_front(config: HistoryEncoderConfig) -> None:
    encoder = encoder_of(config)
    behind = histories()
    shifts = [LENGTH - length for length in LENGTHS]

    in_front = tuple(
        torch.stack([row.roll(shift, dims=0) for row, shift in zip(part, shifts, strict=True)]) for part in behind
    )

    torch.testing.assert_close(
        vectors(encoder, in_front, queries(len(LENGTHS))),  # type: ignore[arg-type]
        vectors(encoder, behind, queries(len(LENGTHS))),
        rtol=0,
        atol=1e-5,
    )


@every_encoder
@pytest.mark.parametrize("lengths", [[3], [5, 0, 2]], ids=["one request", "three requests"])
def test_encoding_once_per_request_equals_encoding_per_candidate(
    config: HistoryEncoderConfig, lengths: list[int]
) -> None:
    encoder = encoder_of(config)
    history = histories(lengths)
    query_CQ, request_C = queries(20), torch.arange(20) % len(lengths)

    sided = encoder.attend(encoder.encode(*history), query_CQ, request_C)

    plain = vectors(encoder, tuple(part[request_C] for part in history), query_CQ)  # type: ignore[arg-type]
    torch.testing.assert_close(sided, plain, rtol=0, atol=1e-5)


@every_encoder
def test_row_does_not_depend_on_its_neighbours(config: HistoryEncoderConfig) -> None:
    encoder = encoder_of(config)
    history, query_CQ = histories(), queries(len(LENGTHS))

    together = vectors(encoder, history, query_CQ)

    alone = [
        vectors(encoder, tuple(part[row : row + 1] for part in history), query_CQ[row : row + 1])  # type: ignore[arg-type]
        for row in range(len(LENGTHS))
    ]
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=1e-5)


@every_encoder
def test_gradient_reaches_entries_query_and_every_weight(config: HistoryEncoderConfig) -> None:
    encoder = encoder_of(config)
    history_RLD, mask_RL, ages_RL = histories()
    query_CQ = queries(len(LENGTHS)).requires_grad_(encoder.reads_candidate)

    vector_RH = vectors(encoder, (history_RLD.requires_grad_(), mask_RL, ages_RL), query_CQ)
    vector_RH.square().sum().backward()

    assert history_RLD.grad is not None
    assert torch.equal(history_RLD.grad.any(dim=2), mask_RL)
    # The shares of a single entry are 1, whatever the candidate.
    assert query_CQ.grad is None or query_CQ.grad[[0, 2]].any(dim=1).all()
    assert query_CQ.grad is None or not query_CQ.grad[1].any()
    without = [key for key, weight in encoder.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert without == []


@every_encoder
def test_bfloat16_stays_close_to_float32(config: HistoryEncoderConfig) -> None:
    torch.manual_seed(0)
    encoder = config.build(in_features=D, query_features=Q, max_length=LENGTH, has_ages=True)
    history, query_CQ = histories(), queries(len(LENGTHS))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = vectors(encoder, history, query_CQ)

    assert lowered.dtype == torch.float32
    torch.testing.assert_close(lowered, vectors(encoder, history, query_CQ), rtol=0.03, atol=0.03)


@every_encoder
def test_seed_decides_the_weights_and_they_survive_a_state_dict(config: HistoryEncoderConfig) -> None:
    encoder, same, other = (encoder_of(config, seed=seed) for seed in (0, 0, 1))
    expected = vectors(encoder, histories(), queries(len(LENGTHS)))

    assert torch.equal(vectors(same, histories(), queries(len(LENGTHS))), expected)
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(vectors(other, histories(), queries(len(LENGTHS))), expected)
