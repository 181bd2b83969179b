"""Requests that took long are logged with their stages, and nothing of their user."""

import logging
from typing import Any

import pytest

from recmoe.ranking import Ranker
from serving.app import create_app
from serving.observability.call import Call
from serving.observability.slow import SlowRequests
from serving.settings import ServeSettings

REQUEST = {"user": {"user_id": "secret"}, "candidates": {"item_id": [101, 102], "price": [1, 2]}}
STAGES = ["read", "queue", "decode", "features", "model", "score", "write"]


def answered(total_ms: float) -> Call:
    call = Call.of({}, method="POST", path="/v1/rank", is_ranking=True)
    call.end(200)
    call.ended_s = call.arrived_s + total_ms / 1000
    return call


def test_slow_request_is_logged_with_its_stages_and_without_its_user(
    ranker: Ranker, serve_app: Any, ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with serve_app(create_app(ranker, ServeSettings(log_slower_than_ms=0))) as url:
        ask(f"{url}/v1/rank", REQUEST)
        ask(f"{url}/healthz")

    (record,) = [record for record in caplog.records if record.name == "serving.observability.slow"]
    fields: Any = vars(record)["fields"]
    assert list(fields["stages_ms"]) == STAGES
    assert sum(fields["stages_ms"].values()) <= fields["total_ms"] + 0.1 * len(STAGES)
    assert {name: fields[name] for name in ("status", "protocol", "candidates", "model", "version")} == {
        "status": 200,
        "protocol": "json",
        "candidates": 2,
        "model": "shop",
        "version": "4",
    }
    assert "2 candidates, status 200" in record.getMessage()
    assert "secret" not in f"{record.getMessage()} {fields}"


def test_limit_decides_and_a_second_has_one_line(caplog: pytest.LogCaptureFixture) -> None:
    slow, off = SlowRequests(100), SlowRequests(None)

    with caplog.at_level(logging.WARNING):
        for total_ms in (99, 101, 500, 500):
            slow.note(answered(total_ms))
            off.note(answered(total_ms))
        slow._last_s -= 1
        slow.note(answered(250))

    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "slow request: 101 ms (no stage has ended), unknown candidates, status 200",
        "slow request: 250 ms (no stage has ended), unknown candidates, status 200; "
        "2 other slow ones since the last line",
    ]
