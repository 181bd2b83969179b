"""A wrong request is told by its field, by ``recmoe rank`` and over HTTP alike."""

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recmoe.ranking import Ranker
from serving.app import create_app

with warnings.catch_warnings():
    # Starlette would rather have a package that is still to be written for.
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

ITEM = {"item_id": "i1"}

REQUESTS = [
    ({"usr": {}}, "usr", "unknown field usr, did you mean user?"),
    ({"user": {"price": 3}}, "user.price", "belongs in candidates"),
    (
        {"candidates": [ITEM, {**ITEM, "price": "cheap"}]},
        "candidates[1].price",
        'expected a finite number, found "cheap"',
    ),
    ({"candidates": [{**ITEM, "price": float("nan")}]}, "candidates[0].price", "expected a finite number, found NaN"),
    ({"user": {"user_id": ["u1"]}}, "user.user_id", "expected a string, found a list"),
    ({"user": {"interests": "sport"}}, "user.interests", 'expected a list, found "sport"'),
    ({"candidates": "i1"}, "candidates", 'expected a list of objects or an object of lists, found "i1"'),
    ({"candidates": []}, "candidates", "there are none; give at least one"),
    (
        {"candidates": [ITEM] * 100_000},
        "candidates",
        "100000 given, at most 10000 are ranked in one request; send the most promising ones, or raise "
        "ranking.max_candidates in the config",
    ),
    ({"top_k": 0}, "top_k", "input should be greater than 0, found 0"),
    ({"score": "profit"}, "score", "unknown score profit, there are default, clicks, ctr, cvr, ctcvr, watch"),
    ({"tasks": ["ctrr"]}, "tasks[0]", "unknown task ctrr, did you mean ctr?"),
    ({"user": {"user_id": 5}}, "user.user_id", "expected a string, found 5"),
    (
        {"candidates": [{"item_id": "\ud83d"}]},
        "candidates[0].item_id",
        r"holds half a character, \ud83d without its other half; send whole characters",
    ),
    (
        {"user": {"\ud83d": 1}},
        r"user.\ud83d",
        r"the name of this field holds half a character, \ud83d without its other half; send whole characters",
    ),
    (
        {"candidates": [{"item_id": "i" * 10**6}]},
        "candidates[0].item_id",
        "has 1000000 characters, an id has at most 2048; shorten it, or raise ranking.max_id_length in the config",
    ),
    (
        {"user": {"interests": ["sport"] * 20_000}},
        "user.interests",
        "is a list of 20000, at most 10000 are read; send the most recent ones, or raise ranking.max_list_length in "
        "the config",
    ),
]

UNKNOWN_FIELDS = [
    ({"user": {"user_idd": "u1"}}, "user.user_idd", "unknown field user_idd, did you mean user_id?"),
    ({"candidates": [{**ITEM, "prise": 3}]}, "candidates[0].prise", "unknown field prise, did you mean price?"),
]


@pytest.fixture(scope="module")
def client(shared_run: Path) -> Iterator[TestClient]:
    app = create_app(Ranker.load(shared_run / "bundle"))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize(("changes", "field", "message"), REQUESTS, ids=[f"{row[1]}-{row[2][:12]}" for row in REQUESTS])
def test_wrong_request_is_told_by_its_field(
    recmoe: Callable[..., Any],
    client: TestClient,
    shared_run: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    field: str,
    message: str,
) -> None:
    body = json.dumps({"user": {"user_id": "u1"}, "candidates": [ITEM], **changes})
    path = tmp_path / "request.json"
    path.write_text(body)

    ranked = recmoe("rank", path, "--model", shared_run)
    served = client.post("/v1/rank", content=body)

    assert (ranked.code, ranked.out, ranked.errors) == (1, "", f"error: {field}: {message}\n")
    assert served.status_code == 422
    assert (served.json()["field"], served.json()["detail"]) == (field, f"{field}: {message}")


@pytest.mark.parametrize(("changes", "field", "message"), UNKNOWN_FIELDS)
def test_unknown_field_is_an_error_where_it_is_wanted_so(
    recmoe: Callable[..., Any], shared_run: Path, tmp_path: Path, changes: dict[str, Any], field: str, message: str
) -> None:
    path = tmp_path / "request.json"
    path.write_text(json.dumps({"candidates": [ITEM], **changes}))

    result = recmoe("rank", path, "--model", shared_run, "--strict-fields")

    assert (result.code, result.out, result.errors) == (1, "", f"error: {field}: {message}\n")


@pytest.mark.parametrize(("changes", "field", "message"), UNKNOWN_FIELDS)
def test_unknown_field_is_warned_of_on_the_terminal(
    recmoe: Callable[..., Any], shared_run: Path, tmp_path: Path, changes: dict[str, Any], field: str, message: str
) -> None:
    path = tmp_path / "request.json"
    path.write_text(json.dumps({"candidates": [ITEM], **changes}))

    result = recmoe("rank", path, "--model", shared_run)

    name, hint = field.rsplit(".", 1)[1], message.split(", ")[1]
    assert result.code == 0
    assert result.out.splitlines()[1].split()[1] == "i1"
    assert f"warning: {name}: the model does not know this field, it is ignored; {hint}\n" in result.errors


@pytest.mark.parametrize(
    ("body", "message"),
    [(b"{", "body: is not JSON: Expecting property name"), (b"[1]", "body: expected an object, found a list\n")],
)
def test_body_that_is_no_object_is_told_so(
    recmoe: Callable[..., Any], shared_run: Path, tmp_path: Path, body: bytes, message: str
) -> None:
    path = tmp_path / "request.json"
    path.write_bytes(body)

    result = recmoe("rank", path, "--model", shared_run)

    assert result.code == 1
    assert result.errors.startswith(f"error: {message}")
