"""A request has an id, which its answer and its log lines carry."""

import logging
import re
from typing import Any

import pytest

from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
from serving.app import create_app
from serving.observability.call import CALL

REQUEST = {"user": {"user_id": "u3"}, "candidates": {"item_id": [101, 102], "price": [1, 2]}}
MADE = r"[0-9a-f]{32}"


def test_id_of_a_request_comes_back_with_its_answer(url: str, ask: Any) -> None:
    answers = [
        ask(f"{url}/v1/rank", REQUEST, {"X-Request-Id": "shop-7:a/b=@+.c"}),
        ask(f"{url}/v1/rank", {}, {"X-Request-Id": "wrong-1"}),
        ask(f"{url}/v2/models/shop/infer", {}, {"X-Request-Id": "wrong-2"}),
        ask(f"{url}/healthz", headers={"X-Request-Id": "probe"}),
    ]

    assert [(answer.status, answer.headers["X-Request-Id"]) for answer in answers] == [
        (200, "shop-7:a/b=@+.c"),
        (422, "wrong-1"),
        (400, "wrong-2"),
        (200, "probe"),
    ]


@pytest.mark.parametrize("given", [None, "", "x" * 129, "two words", 'a"b', "naïve"])
def test_id_that_is_not_fit_to_be_written_down_is_replaced(url: str, ask: Any, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-Id": given}

    ids = [ask(f"{url}/v1/rank", REQUEST, headers).headers["X-Request-Id"] for _ in range(2)]

    assert all(re.fullmatch(MADE, one) for one in ids)
    assert ids[0] != ids[1]


def test_what_is_logged_where_a_request_is_ranked_belongs_to_it(
    bundle: ModelBundle, serve_app: Any, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranker, seen = Ranker(bundle), []
    noting = logging.Handler()
    noting.emit = lambda record: seen.append((record.getMessage(), CALL.get().request_id))  # type: ignore[method-assign]

    def fail(*_: Any, **__: Any) -> None:
        logging.getLogger("serving.test").warning("about to fail")
        raise KeyError("secret")

    monkeypatch.setattr(ranker, "rank_columns", fail)
    for name in ("serving", "uvicorn"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [noting])
    with serve_app(create_app(ranker)) as url:
        answer = ask(f"{url}/v1/rank", REQUEST, {"X-Request-Id": "r1"})

    assert (answer.status, answer.headers["X-Request-Id"]) == (500, "r1")
    assert ("about to fail", "r1") in seen
    assert ("POST /v1/rank failed", "r1") in seen
