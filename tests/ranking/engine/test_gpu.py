"""On a GPU: recorded passes predict what the CPU does, threads take turns, and a model that goes leaves no memory."""

import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
from recmoe.ranking.engine.captured import CapturedEngine
from recmoe.ranking.engine.eager import EagerEngine
from recmoe.ranking.engine.place import build_engine
from recmoe.ranking.precision import TOLERANCES
from tests.ranking.engine.conftest import MakeModel
from tests.ranking.engine.kinds import MODELS, NOT_RECORDED

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CPU: dict[str, Any] = {"device": torch.device("cpu"), "precision": "fp32"}


@pytest.mark.parametrize("name", MODELS)
def test_recorded_passes_of_a_gpu_predict_what_the_cpu_does(name: str, make_model: MakeModel) -> None:
    shop = make_model(**MODELS[name])
    captured = build_engine(shop.model, device="cuda", batch_candidates=0)
    called = build_engine(shop.model, device="cuda", batch_candidates=0, records=False)
    assert isinstance(captured, CapturedEngine)

    for num_requests, first, per_request in ((1, 0, 5), (3, 4, 5), (8, 20, 5), (1, 7, 1)):
        given = shop.candidates(num_requests, first=first, per_request=per_request)
        expected_CT = EagerEngine(shop.model, **CPU).predict(*given)
        np.testing.assert_allclose(called.predict(*given), expected_CT, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(captured.predict(*given), expected_CT, atol=1e-5, rtol=1e-5)

    assert (captured.hazard is not None) == (name in NOT_RECORDED), captured.hazard


@pytest.mark.parametrize("name", ["mmoe", "ple", "gate top_k", "history transformer", "ids alone"])
def test_bf16_is_as_near_as_bf16_is(name: str, make_model: MakeModel) -> None:
    shop = make_model(**MODELS[name])
    captured = build_engine(shop.model, device="cuda", precision="bf16", batch_candidates=0)
    given = shop.candidates(8)

    expected_CT = EagerEngine(shop.model, **CPU).predict(*given)

    np.testing.assert_allclose(captured.predict(*given), expected_CT, atol=TOLERANCES["bf16"], rtol=0)
    assert isinstance(captured, CapturedEngine)
    assert captured.hazard is None


def test_threads_get_what_each_asked_for(make_model: MakeModel) -> None:
    shop = make_model(**MODELS["history transformer"])
    engine = build_engine(shop.model, device="cuda")
    given = [shop.candidates(1 + turn % 4, first=turn, per_request=1 + turn % 5) for turn in range(32)]
    expected = [EagerEngine(shop.model, **CPU).predict(*one) for one in given]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: engine.predict(*one), given * 8))

    for found_CT, expected_CT in zip(found, expected * 8, strict=True):
        np.testing.assert_allclose(found_CT, expected_CT, atol=1e-5, rtol=1e-5)


def test_a_model_that_is_replaced_gives_back_its_memory(bundle: ModelBundle) -> None:
    def allocated() -> int:
        gc.collect()
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    taken = []
    for _ in range(5):
        # The one before is there until the next one is.
        ranker = Ranker.load(bundle, device="cuda")
        taken.append(allocated())

    assert ranker.engine.device.type == "cuda"
    # The first two bring the libraries' own memory, of two streams.
    assert max(taken[2:]) <= taken[1] + 2**20


def test_a_ranker_of_a_gpu_ranks_and_explains_as_one_of_the_cpu(bundle: ModelBundle) -> None:
    from recmoe.ranking import RankRequest, RankResponse

    request = RankRequest.parse(
        {
            "user": {"user_id": "u1", "tags": ["red"]},
            "candidates": [{"item_id": 101}, {"item_id": 999, "price": 3.5}],
            "explain": True,
        }
    )

    answer, expected = Ranker.load(bundle, device="cuda").rank(request), Ranker.load(bundle).rank(request)

    assert isinstance(answer, RankResponse)
    for item, other in zip(answer.items, expected.items, strict=True):
        assert item.item_id == other.item_id
        assert item.tasks == pytest.approx(other.tasks, abs=1e-5)
        assert item.explanation == other.explanation
