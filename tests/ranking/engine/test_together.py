"""Calls that wait while the model computes are computed together; each as if it came alone."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from recmoe.features.batch import Batch
from recmoe.model.known_items import KnownCandidates
from recmoe.ranking.engine.eager import EagerEngine
from recmoe.ranking.engine.place import build_engine
from recmoe.ranking.engine.together import TogetherEngine
from tests.ranking.engine.conftest import Candidates, MakeModel, ShopModel

Floats = NDArray[np.float32]
CPU: dict[str, Any] = {"device": torch.device("cpu"), "precision": "fp32"}


class GatedEngine(EagerEngine):
    """Computes when it is let; notes what it is given, and cannot compute more candidates than it has room for."""

    def __init__(self, shop: ShopModel, *, room: int = 10_000) -> None:
        super().__init__(shop.model, **CPU)
        self.begun = threading.Semaphore(0)
        self.may_go = threading.Semaphore(0)
        self.passes: list[int] = []
        self.room = room

    def predict(
        self, shared: Batch, own: Batch, request_C: Tensor, known: KnownCandidates | None = None
    ) -> NDArray[np.float32]:
        self.begun.release()
        assert self.may_go.acquire(timeout=30)
        self.passes.append(own.num_rows)
        if own.num_rows > self.room:
            raise RuntimeError(f"no room for {own.num_rows}")
        return super().predict(shared, own, request_C, known)


def calls_that_wait(
    engine: TogetherEngine, gated: GatedEngine, given: list[Candidates], pool: ThreadPoolExecutor
) -> list[Future[Floats]]:
    """The first call is computed, and all others wait in their order."""
    futures = [pool.submit(engine.predict, *given[0])]
    assert gated.begun.acquire(timeout=30)
    for place, one in enumerate(given[1:], start=1):
        futures.append(pool.submit(engine.predict, *one))
        _until(lambda place=place: engine.num_waiting == place)  # type: ignore[misc]
    return futures


def _until(is_so: Callable[[], bool]) -> None:
    for _ in range(3000):
        if is_so():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come to it")


@pytest.fixture(scope="module")
def shop(make_model: MakeModel) -> ShopModel:
    return make_model()


def test_a_call_that_finds_the_model_free_is_computed_alone(shop: ShopModel) -> None:
    engine = TogetherEngine(EagerEngine(shop.model, **CPU), max_candidates=100)
    given = shop.candidates(2)

    found_CT = engine.predict(*given)

    assert np.array_equal(found_CT, EagerEngine(shop.model, **CPU).predict(*given))
    assert engine.num_passes == 1


def test_calls_that_wait_are_computed_together_in_their_order(shop: ShopModel) -> None:
    gated = GatedEngine(shop)
    engine = TogetherEngine(gated, max_candidates=35)
    given = [shop.candidates(num, first=first) for num, first in ((1, 0), (2, 1), (3, 5), (2, 9), (1, 20))]
    expected = [EagerEngine(shop.model, **CPU).predict(*one) for one in given]

    with ThreadPoolExecutor(8) as pool:
        futures = calls_that_wait(engine, gated, given, pool)
        gated.may_go.release(10)
        found = [future.result(timeout=30) for future in futures]

    # 10 + 15 + 10 candidates fill a pass.
    assert gated.passes == [5, 35, 5]
    for found_CT, expected_CT in zip(found, expected, strict=True):
        np.testing.assert_allclose(found_CT, expected_CT, atol=1e-6, rtol=0)


def test_where_a_pass_fails_each_call_has_an_outcome_of_its_own(shop: ShopModel) -> None:
    gated = GatedEngine(shop, room=8)
    engine = TogetherEngine(gated, max_candidates=100)
    given = [shop.candidates(num, first=first) for num, first in ((1, 0), (1, 1), (2, 5), (1, 9))]

    with ThreadPoolExecutor(8) as pool:
        futures = calls_that_wait(engine, gated, given, pool)
        gated.may_go.release(10)
        errors = [future.exception(timeout=30) for future in futures]

    assert gated.passes == [5, 20, 5, 10, 5]
    assert [str(error) for error in errors] == ["None", "None", "no room for 10", "None"]
    assert engine.predict(*given[0]).shape == (5, 3)


def test_a_thread_that_is_interrupted_leaves_nobody_waiting(shop: ShopModel) -> None:
    class Interrupted(EagerEngine):
        def predict(self, *_: Any) -> Floats:
            raise KeyboardInterrupt

    engine = TogetherEngine(Interrupted(shop.model, **CPU), max_candidates=100)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            engine.predict(*shop.candidates(1))


def test_many_threads_get_what_each_asked_for(make_model: MakeModel) -> None:
    shop = make_model(lists=False)
    engine = build_engine(shop.model, batch_candidates=64, records=True)
    given = [shop.candidates(1 + turn % 3, first=turn, per_request=1 + turn % 5) for turn in range(32)]
    expected = [EagerEngine(shop.model, **CPU).predict(*one) for one in given]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: engine.predict(*one), given * 4))

    for found_CT, expected_CT in zip(found, expected * 4, strict=True):
        np.testing.assert_allclose(found_CT, expected_CT, atol=1e-6, rtol=0)
