"""Requests as clients write them, over HTTP."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from recmoe.cli import app
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
from serving.app import create_app
from serving.docs_page import example_request

Ask = Callable[..., Any]
Serve = Callable[[FastAPI], AbstractContextManager[str]]

BIG = 1460000000000000001
"""The first item and user of the log."""
ITEM = {"item_id": BIG, "price": 1.0}


@pytest.fixture(scope="module")
def ranker(ids_bundle: ModelBundle) -> Ranker:
    return Ranker(ids_bundle)


@pytest.fixture
def url(ranker: Ranker, serve_app: Serve) -> Iterator[str]:
    with serve_app(create_app(ranker)) as url:
        yield url


def scores(answer: Any) -> list[float]:
    return [item["score"] for item in answer["items"]]


def count(page: str, name: str) -> float:
    """A number of the metrics page, 0 where it is not there."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_ids_as_strings_score_as_numbers_and_come_back_as_they_came(ask: Ask, url: str) -> None:
    numbers = {
        "user": {"user_id": BIG + 7, "seen": [BIG, BIG + 5]},
        "candidates": {"item_id": [BIG, BIG + 1, BIG + 2], "price": [1, 1, 1]},
    }
    strings = {
        "user": {"user_id": str(BIG + 7), "seen": [str(BIG), BIG + 5]},
        "candidates": {"item_id": [str(BIG), str(BIG + 1), str(BIG + 2)], "price": [1, 1, 1]},
    }

    by_number, by_string = ask(f"{url}/v1/rank", numbers), ask(f"{url}/v1/rank", strings)

    number_ids = [item["item_id"] for item in by_number.document["items"]]
    assert sorted(number_ids) == [BIG, BIG + 1, BIG + 2]
    assert [item["item_id"] for item in by_string.document["items"]] == list(map(str, number_ids))
    assert scores(by_string.document) == scores(by_number.document)
    assert len(set(scores(by_number.document))) == 3
    assert [warning["code"] for warning in by_string.document["warnings"]] == ["missing", "missing"]


def test_no_number_beyond_what_javascript_reads_answers_strings(ask: Ask, url: str) -> None:
    answer = ask(f"{url}/v1/rank", {"candidates": [{"item_id": str(BIG)}, {"item_id": str(BIG + 1)}]})

    numbers = re.findall(r'(?<!["\w.])\d{16,}(?!["\w])', answer.text)
    assert answer.status == 200
    assert numbers == []


@pytest.mark.parametrize("shop", [7, 7.0, "7"])
def test_id_that_a_gap_made_a_float_is_one_id_in_every_form(ask: Ask, url: str, shop: Any) -> None:
    answer = ask(f"{url}/v1/rank", {"context": {"shop": shop}, "candidates": [ITEM]})
    other = ask(f"{url}/v1/rank", {"context": {"shop": 8}, "candidates": [ITEM]})
    plain = ask(f"{url}/v1/rank", {"context": {"shop": 7}, "candidates": [ITEM]})

    assert "shop" not in [warning["feature"] for warning in answer.document["warnings"]]
    assert scores(answer.document) == scores(plain.document) != scores(other.document)


def test_text_id_keeps_its_zeros_and_is_no_number(ask: Ask, url: str) -> None:
    known = ask(f"{url}/v1/rank", {"user": {"account": "0000000005"}, "candidates": [ITEM]})
    short = ask(f"{url}/v1/rank", {"user": {"account": "5"}, "candidates": [ITEM]})
    number = ask(f"{url}/v1/rank", {"user": {"account": 5}, "candidates": [ITEM]})

    unknown = {"feature": "account", "code": "unknown", "count": 1}
    assert unknown not in known.document["warnings"]
    assert unknown in short.document["warnings"]
    assert (number.status, number.document["detail"]) == (422, "user.account: expected a string, found 5")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (r'{"candidates": [{"item_id": "\ud83d"}]}', "candidates[0].item_id"),
        (r'{"user": {"user_id": "\ud83d"}, "candidates": [{"item_id": 1}]}', "user.user_id"),
        (r'{"request_id": "\ud83d", "candidates": [{"item_id": 1}]}', "request_id"),
        (r'{"score": "\udc00", "candidates": [{"item_id": 1}]}', "score"),
        (r'{"user": {"\ud83d": 1}, "candidates": [{"item_id": 1}]}', r"user.\ud83d"),
        (r'{"\ud83d": 1, "candidates": [{"item_id": 1}]}', r"\ud83d"),
        (r'{"candidates": {"item_id": [1], "\ud83d": [1]}}', r"candidates.\ud83d"),
    ],
)
def test_half_an_emoji_is_the_fault_of_the_request(ask: Ask, url: str, body: str, field: str) -> None:
    answer = ask(f"{url}/v1/rank", body.encode())

    assert (answer.status, answer.kind) == (422, "application/problem+json")
    assert answer.document["field"] == field
    assert "half a character" in answer.document["detail"]
    assert 'code="500"' not in ask(f"{url}/metrics").text


def test_fault_of_any_page_is_counted_and_answered_without_its_inside(
    ask: Ask,
    serve_app: Serve,
    ids_bundle: ModelBundle,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ranker = Ranker(ids_bundle)
    faulty = create_app(ranker)
    faulty.get("/fault")(lambda: 1 / 0)

    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(ranker, "rank_columns", fail)
    with serve_app(faulty) as url:
        answers = [ask(f"{url}/v1/rank", {"candidates": [ITEM]}), ask(f"{url}/fault")]
        page = ask(f"{url}/metrics").text

    assert [(answer.status, answer.kind) for answer in answers] == [(500, "application/problem+json")] * 2
    assert {answer.document["detail"] for answer in answers} == {"the server failed; its log says why"}
    assert count(page, 'recmoe_rank_requests_total{code="500",model="ids",version=""}') == 2
    assert "POST /v1/rank failed" in caplog.text


def test_client_that_hangs_up_is_no_fault_of_the_server(ask: Ask, url: str) -> None:
    port = int(url.rsplit(":", 1)[1])

    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST /v1/rank HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    deadline_s = time.monotonic() + 10
    while 'code="499"' not in (page := ask(f"{url}/metrics").text) and time.monotonic() < deadline_s:
        time.sleep(0.02)

    assert count(page, 'recmoe_rank_requests_total{code="499",model="ids",version=""}') == 1
    assert 'code="500"' not in page


def test_fields_of_a_newer_model_are_ignored_with_a_warning_each(ask: Ask, url: str) -> None:
    newer = {
        "user": {"user_id": BIG, "device": "phone"},
        "candidates": [{**ITEM, "prise": 3}, {**ITEM, "prise": 4}],
    }

    answer = ask(f"{url}/v1/rank", newer)
    plain = ask(f"{url}/v1/rank", {"user": {"user_id": BIG}, "candidates": [ITEM, ITEM]})
    page = ask(f"{url}/metrics").text

    assert answer.status == 200
    assert scores(answer.document) == scores(plain.document)
    assert [warning for warning in answer.document["warnings"] if warning["code"] == "unknown_field"] == [
        {"feature": "device", "code": "unknown_field", "count": 1},
        {"feature": "prise", "code": "unknown_field", "count": 2, "hint": "did you mean price?"},
    ]
    assert count(page, 'recmoe_rank_ignored_fields_total{field="prise"}') == 2


def test_fields_of_a_newer_model_are_refused_where_they_are_not_wanted(
    ask: Ask, serve_app: Serve, ids_bundle: ModelBundle
) -> None:
    with serve_app(create_app(Ranker(ids_bundle, strict_fields=True))) as url:
        answer = ask(f"{url}/v1/rank", {"candidates": [{**ITEM, "prise": 3}]})

    assert answer.status == 422
    assert answer.document["field"] == "candidates[0].prise"
    assert answer.document["detail"] == "candidates[0].prise: unknown field prise, did you mean price?"


def test_names_that_clients_make_up_do_not_fill_the_metrics(ask: Ask, url: str) -> None:
    for start in (0, 60, 120):
        user = {f"field_{number}": 1 for number in range(start, start + 60)}
        assert ask(f"{url}/v1/rank", {"user": user, "candidates": [ITEM]}).status == 200

    page = ask(f"{url}/metrics").text
    assert page.count("recmoe_rank_ignored_fields_total{") == 101
    assert count(page, 'recmoe_rank_ignored_fields_total{field="(others)"}') == 80


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"candidates": [{"item_id": "1" * 10**6}]}, "candidates[0].item_id"),
        ({"user": {"account": "a" * 10**6}, "candidates": [ITEM]}, "user.account"),
        ({"user": {"seen": ["1" * 10**6]}, "candidates": [ITEM]}, "user.seen[0]"),
        ({"user": {"seen": [1] * 10**5}, "candidates": [ITEM]}, "user.seen"),
        ({"request_id": "a" * 10**6, "candidates": [ITEM]}, "request_id"),
        ({"score": "a" * 10**6, "candidates": [ITEM]}, "score"),
        ({"user": {"a" * 10**6: 1}, "candidates": [ITEM]}, f"user.{'a' * 97}..."),
        ({"candidates": [ITEM] * 10_001}, "candidates"),
    ],
    ids=["item", "text", "list element", "list", "request id", "score", "field", "candidates"],
)
def test_megabyte_is_refused_by_its_field_at_once(ask: Ask, url: str, body: Any, field: str) -> None:
    ask(f"{url}/v1/rank", {"candidates": [ITEM]})

    start_s = time.process_time()
    answer = ask(f"{url}/v1/rank", body)
    # Hashing a megabyte takes two seconds of the processor, which every other request would wait for.
    used_s = time.process_time() - start_s

    assert (answer.status, answer.document["field"]) == (422, field)
    assert len(answer.text) < 1000
    assert used_s < 0.5


def test_task_called_score_has_its_prediction_beside_the_score(ask: Ask, url: str) -> None:
    answer = ask(f"{url}/v1/rank", {"candidates": [ITEM], "score": "buy"})

    (item,) = answer.document["items"]
    assert set(item["tasks"]) == {"score", "buy"}
    assert item["score"] == item["tasks"]["buy"] != item["tasks"]["score"]


def test_task_called_score_has_a_column_of_its_own_on_the_terminal(ids_bundle_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    path.write_text(json.dumps({"candidates": [{"item_id": str(BIG)}], "score": "buy"}))

    result = CliRunner().invoke(app, ["rank", str(path), "--model", str(ids_bundle_path)])

    assert result.exit_code == 0, result.output
    header, row = (line.split("  ") for line in result.stdout.splitlines()[:2])
    assert [cell.strip() for cell in header if cell] == ["place", "item", "score", "task score", "buy"]
    assert str(BIG) in row


def test_page_of_fields_needs_nothing_from_elsewhere(ask: Ask, url: str) -> None:
    page = ask(f"{url}/docs")

    assert (page.status, page.kind) == (200, "text/html")
    assert re.findall(r"""(?:https?:)?//[\w.]+|\ssrc=|<link""", page.text) == []
    assert "an id, a whole number or its digits as a string" in page.text
    for name in ("user_id", "account", "seen", "shop", "item_id", "price"):
        assert f"<code>{name}</code>" in page.text
    for path in re.findall(r'href="([^"]+)"', page.text):
        assert ask(f"{url}/{path}").status == 200
    assert ask(f"{url}/redoc").status == 404


def test_example_of_the_page_is_answered(ask: Ask, url: str, ranker: Ranker) -> None:
    answer = ask(f"{url}/v1/rank", example_request(ranker))

    assert answer.status == 200
    assert json.dumps(ranker.info.digest[:12]).strip('"') in ask(f"{url}/docs").text


def test_example_of_another_log_is_answered(ask: Ask, serve_app: Serve, bundle: ModelBundle) -> None:
    ranker = Ranker(bundle)
    with serve_app(create_app(ranker)) as url:
        answer = ask(f"{url}/v1/rank", example_request(ranker))

    assert answer.status == 200
