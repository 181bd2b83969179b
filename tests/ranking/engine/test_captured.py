"""Recorded passes: what is predicted in fixed sizes is what the model predicts of the rows alone.

On the CPU a recording is a plain call; sizes, padding and turns are those of a GPU.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from recmoe.errors import BundleError
from recmoe.export.bundle import ModelBundle
from recmoe.features.layout import OWN_SIDES
from recmoe.products import has_fast_bf16
from recmoe.ranking import Ranker, RankRequest, RankResponse
from recmoe.ranking.engine.captured import CapturedEngine
from recmoe.ranking.engine.eager import EagerEngine
from recmoe.ranking.engine.place import build_engine, on_device
from recmoe.ranking.engine.recording import PlainCalls, Staging
from recmoe.ranking.precision import TOLERANCES
from recmoe.ranking.replay import check_replay
from tests.ranking.engine.conftest import Candidates, MakeModel, ShopModel
from tests.ranking.engine.kinds import MODELS, NOT_RECORDED

CPU = torch.device("cpu")


def engines(
    shop: ShopModel, *, requests: tuple[int, ...] = (1, 4, 16), candidates: tuple[int, ...] = (64, 128)
) -> tuple[EagerEngine, CapturedEngine]:
    """One that computes call by call, and one that repeats what it has recorded."""
    captured = CapturedEngine(
        on_device(shop.model, CPU),
        device=CPU,
        precision="fp32",
        recorder=PlainCalls(),
        requests=requests,
        candidates=candidates,
    )
    return EagerEngine(shop.model, device=CPU, precision="fp32"), captured


def with_words(shop: ShopModel, given: Candidates, num_words: int) -> Candidates:
    """The same candidates, of which the first has so many words more, all of them unknown."""
    keys = [key.name for key in shop.encoder.layout.select(OWN_SIDES).sparse]
    place = keys.index("words")
    lengths_KB = given.own.lengths_KB.clone()
    lengths_KB[place, 0] += num_words
    first = int(given.own.lengths_KB[:place].sum())
    values = given.own.values
    values = torch.cat([values[:first], values.new_zeros(num_words), values[first:]])
    return given._replace(own=replace(given.own, lengths_KB=lengths_KB, values=values))


@pytest.mark.parametrize("name", MODELS)
def test_recorded_passes_predict_what_the_model_does(name: str, make_model: MakeModel) -> None:
    shop = make_model(**MODELS[name])
    eager, captured = engines(shop)

    for num_requests, first, per_request in ((1, 0, 5), (3, 4, 5), (8, 20, 5), (1, 7, 1), (8, 0, 3)):
        given = shop.candidates(num_requests, first=first, per_request=per_request)
        expected_CT = eager.predict(*given)
        assert num_requests * per_request == 1 or np.ptp(expected_CT[:, 0]) > 1e-4
        np.testing.assert_allclose(captured.predict(*given), expected_CT, atol=1e-6, rtol=1e-6)

    assert (captured.hazard is not None) == (name in NOT_RECORDED)
    assert captured.num_recorded == (0 if name in NOT_RECORDED else 3)


def test_a_size_is_recorded_once_and_replaced_where_lists_grow(make_model: MakeModel) -> None:
    shop = make_model()
    eager, captured = engines(shop)
    given = shop.candidates(4)
    # A candidate with more words than there was room for.
    longer = with_words(shop, given, 100)

    for one in (given, shop.candidates(3, first=9), longer, given):
        np.testing.assert_allclose(captured.predict(*one), eager.predict(*one), atol=1e-6, rtol=0)

    assert captured.num_recorded == 2


def test_what_is_larger_than_every_size_is_cut(make_model: MakeModel) -> None:
    shop = make_model()
    eager, captured = engines(shop, requests=(1, 2), candidates=(32,))
    many = shop.candidates(40)
    one = many._replace(shared=shop.candidates(1).shared, request_C=torch.zeros(200, dtype=torch.int64))

    for given in (many, one):
        np.testing.assert_allclose(captured.predict(*given), eager.predict(*given), atol=1e-6, rtol=0)

    assert captured.hazard is None
    assert captured.num_recorded > 0


def test_ids_beyond_every_room_are_computed_without_a_recording(make_model: MakeModel) -> None:
    shop = make_model()
    eager, captured = engines(shop)
    given = shop.candidates(1)
    huge = with_words(shop, given, 2**17 + 1)

    np.testing.assert_allclose(captured.predict(*huge), eager.predict(*huge), atol=1e-6, rtol=0)

    assert (captured.num_recorded, captured.hazard) == (0, None)


def test_threads_take_turns(make_model: MakeModel) -> None:
    shop = make_model(features={"history": MODELS["history transformer"]["features"]["history"]})
    eager, captured = engines(shop)
    given = [shop.candidates(1 + turn % 4, first=turn, per_request=1 + turn % 5) for turn in range(32)]
    expected = [eager.predict(*one) for one in given]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: captured.predict(*one), given * 4))

    for found_CT, expected_CT in zip(found, expected * 4, strict=True):
        np.testing.assert_allclose(found_CT, expected_CT, atol=1e-6, rtol=0)


@pytest.mark.skipif(not has_fast_bf16(CPU), reason="the processor has no bf16 arithmetic")
@pytest.mark.parametrize("name", ["mmoe", "gate top_k", "history transformer", "ids alone in bf16"])
def test_bf16_is_recorded_as_it_is_computed(name: str, make_model: MakeModel) -> None:
    shop = make_model(**MODELS[name])
    captured = build_engine(shop.model, precision="bf16", records=True)
    called = build_engine(shop.model, precision="bf16")
    given = shop.candidates(4)

    # Chosen experts and all of them are other products: they round otherwise.
    np.testing.assert_allclose(captured.predict(*given), called.predict(*given), atol=TOLERANCES["bf16"], rtol=0)

    assert isinstance(captured, CapturedEngine)
    assert captured.hazard is None


def test_every_size_is_recorded_beforehand(make_model: MakeModel) -> None:
    shop = make_model()
    _, captured = engines(shop)

    given = shop.candidates(2)
    captured.warm_up(given.shared, given.own)
    before = captured.num_recorded
    captured.predict(*shop.candidates(4))

    # 1, 4 and 16 requests, and of 64 and 128 candidates those that are as many as them.
    assert (before, captured.num_recorded) == (6, 6)


def test_what_cannot_be_recorded_is_logged_once(make_model: MakeModel, caplog: pytest.LogCaptureFixture) -> None:
    shop = make_model(**MODELS["star"])
    _, captured = engines(shop)

    with caplog.at_level(logging.WARNING):
        captured.predict(*shop.candidates())
        captured.predict(*shop.candidates())

    assert [record.message for record in caplog.records] == [
        "this model is ranked operation by operation, nothing of it is recorded: bincount.default is waited for"
    ]


class FailingRecorder(PlainCalls):
    """What a driver says of a capture that it cannot do."""

    def record(self, compute: Callable[[], Tensor], staging: Staging) -> Callable[[], Tensor]:
        del compute, staging
        raise RuntimeError("operation not permitted\nwhen stream is capturing")


def test_a_capture_that_fails_is_computed_without(make_model: MakeModel, caplog: pytest.LogCaptureFixture) -> None:
    shop = make_model()
    eager = EagerEngine(shop.model, device=CPU, precision="fp32")
    model = on_device(shop.model, CPU)
    captured = CapturedEngine(model, device=CPU, precision="fp32", recorder=FailingRecorder())

    found_CT = captured.predict(*shop.candidates())

    np.testing.assert_allclose(found_CT, eager.predict(*shop.candidates()), atol=1e-6, rtol=0)
    assert captured.hazard == "operation not permitted when stream is capturing"
    assert "operation not permitted when stream is capturing" in caplog.text


class Wrong(PlainCalls):
    """Records something else."""

    def record(self, compute: Callable[[], Tensor], staging: Staging) -> Callable[[], Tensor]:
        del staging
        return lambda: compute() * float("nan")


def test_a_recording_that_differs_is_not_used(make_model: MakeModel) -> None:
    shop = make_model()
    captured = CapturedEngine(on_device(shop.model, CPU), device=CPU, precision="fp32", recorder=Wrong())

    found_CT = captured.predict(*shop.candidates())

    assert captured.hazard == "its predictions differ by nan, which may be 1e-05"
    np.testing.assert_allclose(found_CT, engines(shop)[0].predict(*shop.candidates()), atol=1e-6, rtol=0)


class Forgetful(PlainCalls):
    """Repeats what it has computed once, whatever has been written since."""

    def record(self, compute: Callable[[], Tensor], staging: Staging) -> Callable[[], Tensor]:
        del staging
        result = compute()
        return lambda: result


def test_a_wrong_recording_is_refused_by_the_replay(bundle: ModelBundle) -> None:
    model = on_device(bundle.model, CPU)
    captured = CapturedEngine(model, device=CPU, precision="fp32", recorder=Forgetful(), requests=(1,))

    with pytest.raises(BundleError, match="replay: task ctr differs from the training model by more than 1e-05"):
        check_replay(bundle, Ranker(bundle)._decoder, captured.predict, TOLERANCES["fp32"])


def test_a_ranker_ranks_by_recorded_passes(bundle: ModelBundle) -> None:
    ranker, plain = Ranker(bundle), Ranker(bundle)
    ranker.engine = build_engine(bundle.model, records=True)
    requests = [
        {"user": {"user_id": "u1", "tags": tags}, "candidates": [{"item_id": 101}, {"item_id": 999, "price": 3.5}]}
        for tags in (["red"], [], None, ["silk", "none"])
    ]

    check_replay(bundle, ranker._decoder, ranker.engine.predict, TOLERANCES["fp32"])
    parsed = [RankRequest.parse(one) for one in requests]
    answers, expected = ranker.rank_many(parsed), plain.rank_many(parsed)

    assert isinstance(ranker.engine, CapturedEngine)
    assert ranker.engine.hazard is None
    for answer, of_plain in zip(answers, expected, strict=True):
        assert isinstance(answer, RankResponse)
        assert isinstance(of_plain, RankResponse)
        for item, other in zip(answer.items, of_plain.items, strict=True):
            assert item.item_id == other.item_id
            assert item.tasks == pytest.approx(other.tasks, abs=1e-6)
