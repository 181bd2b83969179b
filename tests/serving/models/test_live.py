"""The last requests are kept within bounds, and a new model must answer them as the champion did."""

import json
from typing import Any

import pytest

from recmoe.errors import BundleError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
from serving.app import create_app
from serving.models.holder import ServedModels
from serving.models.live import LiveRequests, check_live
from serving.protocols.json_v1 import JsonV1

REQUEST: dict[str, Any] = {"user": {"user_id": "u3"}, "candidates": [{"item_id": 101, "price": 3.5}, {"item_id": 102}]}
BODY = json.dumps(REQUEST).encode()
READ = JsonV1(max_values=1000).read


def test_oldest_requests_make_room_by_number_and_by_bytes() -> None:
    by_number = LiveRequests(max_requests=2, max_bytes=100)
    by_bytes = LiveRequests(max_requests=100, max_bytes=5)

    for body in (b"a", b"bb", b"ccc"):
        by_number.record(body, READ)
        by_bytes.record(body, READ)
    by_bytes.record(b"six bytes and more", READ)

    assert by_number.kept() == [(b"bb", READ), (b"ccc", READ)]
    assert by_bytes.kept() == [(b"bb", READ), (b"ccc", READ)]


def test_none_are_kept_where_none_are_wanted() -> None:
    live = LiveRequests(max_requests=0, max_bytes=100)

    live.record(b"a", READ)

    assert live.kept() == []


def test_requests_that_were_answered_are_kept_and_others_are_not(ranker: Ranker, serve_app: Any, ask: Any) -> None:
    models = ServedModels(lambda: ranker, live=LiveRequests(max_requests=10, max_bytes=10_000))
    models.load()

    with serve_app(create_app(models)) as url:
        statuses = [ask(f"{url}/v1/rank", body).status for body in (BODY, b"{}", BODY)]

    assert statuses == [200, 422, 200]
    assert [body for body, _ in models.live.kept()] == [BODY, BODY]
    check_live(ranker, ranker, models.live.kept())


def test_model_that_answers_all_passes(ranker: Ranker) -> None:
    check_live(ranker, ranker, [(BODY, READ), (BODY, READ)])


def test_model_that_cannot_answer_is_refused_with_the_request_and_the_field(
    bundle: ModelBundle, ranker: Ranker
) -> None:
    strict = Ranker(bundle, strict_fields=True)
    other = json.dumps({**REQUEST, "context": {"device": "phone"}}).encode()

    with pytest.raises(
        BundleError,
        match=r"it cannot answer request 2 of the last 2, which version 4 answered: context\.device: .*; change the "
        r"model, or the clients first and let the server look again \(SIGUSR1\)",
    ):
        check_live(strict, ranker, [(BODY, READ), (other, READ)])


def test_scores_that_are_finite_no_more_are_a_refusal_and_those_that_never_were_are_none(
    bundle: ModelBundle, ranker: Ranker
) -> None:
    config = {**bundle.config, "ranking": {"scores": {"profit": "log(ctr - ctr)"}}}
    broken = Ranker(ModelBundle(**{**vars(bundle), "config": config}))

    check_live(broken, broken, [(BODY, READ)])
    check_live(ranker, broken, [(BODY, READ)])
    with pytest.raises(BundleError, match=r"2 candidates of request 1 of the last 1, .* get no finite score from it"):
        check_live(broken, ranker, [(BODY, READ)])
