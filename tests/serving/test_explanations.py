"""Explanations over HTTP: those of the ranker, in every protocol that has a place for them, within limits and time."""

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest

from recmoe.client import Explanation, RankClient
from recmoe.errors import RequestError
from recmoe.export.bundle import ModelBundle
from recmoe.model.attributions import SidedRows
from recmoe.ranking import Ranker, RankRequest
from recmoe.ranking.explain import Explainer
from recmoe.ranking.ranked import Check
from serving.app import create_app
from serving.settings import ServeSettings

Ask = Callable[..., Any]

ARROW = "application/vnd.apache.arrow.stream"
REQUEST: dict[str, Any] = {
    "user": {"user_id": "u3", "tags": ["wool"], "age": 40},
    "context": {"hour": 12},
    "candidates": [{"item_id": 101, "price": 3.5}, {"item_id": 102, "words": ["red"]}, {"item_id": 999, "price": 1}],
}
EXPLAINED = {**REQUEST, "explain": True, "top_features": 3}


@pytest.fixture(scope="module")
def strict_url(bundle: ModelBundle, serve_app: Any) -> Iterator[str]:
    with serve_app(create_app(Ranker(bundle), ServeSettings(max_explained=2))) as url:
        yield url


def test_items_come_with_the_explanations_of_the_ranker(ask: Ask, url: str, ranker: Ranker) -> None:
    answer = ask(f"{url}/v1/rank", EXPLAINED)

    expected = ranker.rank(RankRequest.parse(EXPLAINED)).model_dump()
    document = answer.document
    assert answer.status == 200
    assert document["items"] == expected["items"]
    assert [len(task["features"]) for task in document["items"][0]["explanation"]["tasks"].values()] == [3, 3, 3]
    assert list(document["timing_ms"]) == ["decode", "features", "model", "score", "queue", "explain", "total"]


def test_answer_without_explanations_has_no_trace_of_them(ask: Ask, url: str) -> None:
    answers = [ask(f"{url}/v1/rank", {**REQUEST, **wish}) for wish in ({}, {"explain": False}, {"top_features": 7})]

    texts = {re.sub(r'"timing_ms":.*', "", answer.text) for answer in answers}
    assert len(texts) == 1
    assert re.search(r'"items":\[\{"item_id":\d+,"score":[\d.e-]+,"tasks":\{[^{}]*\}\},\{', texts.pop())
    assert all(list(answer.document["timing_ms"])[-2:] == ["score", "total"] for answer in answers)


def test_explaining_is_a_stage_of_the_latency(ask: Ask, serve_app: Any, bundle: ModelBundle) -> None:
    def count(page: str, stage: str) -> str:
        return "".join(re.findall(rf'recmoe_rank_latency_seconds_count{{stage="{stage}"}} (\S+)', page))

    with serve_app(create_app(Ranker(bundle))) as url:
        ask(f"{url}/v1/rank", REQUEST)
        before = ask(f"{url}/metrics").text
        ask(f"{url}/v1/rank", EXPLAINED)
        after = ask(f"{url}/metrics").text

    assert (count(before, "explain"), count(after, "explain")) == ("", "1.0")
    assert (count(before, "model"), count(after, "model")) == ("1.0", "2.0")
    assert 'recmoe_rank_requests_total{code="200",model="shop",version=""} 2.0' in after


def test_no_more_items_are_explained_than_the_server_allows(ask: Ask, strict_url: str) -> None:
    too_many = ask(f"{strict_url}/v1/rank", EXPLAINED)
    few = ask(f"{strict_url}/v1/rank", {**EXPLAINED, "top_k": 2})

    assert (too_many.status, too_many.kind) == (422, "application/problem+json")
    assert too_many.document["field"] == "explain"
    assert too_many.document["detail"] == (
        "explain: 3 items would be explained, at most 2 are in one request; "
        "send top_k: 2 or less, or raise max_explained of the server"
    )
    assert few.status == 200
    assert ask(f"{strict_url}/v1/rank", REQUEST).status == 200


def test_server_that_explains_nothing_says_so(ask: Ask, serve_app: Any, bundle: ModelBundle) -> None:
    with serve_app(create_app(Ranker(bundle), ServeSettings(max_explained=0))) as url:
        refused, plain = ask(f"{url}/v1/rank", {**EXPLAINED, "top_k": 1}), ask(f"{url}/v1/rank", REQUEST)

    assert (refused.status, plain.status) == (422, 200)
    assert refused.document["detail"] == "explain: this server explains nothing: its max_explained is 0"


class SlowExplainer(Explainer):
    """Takes ten seconds, if it is let."""

    def explain(
        self, rows: SidedRows, *, task_names: Sequence[str], top_features: int, check: Check = lambda: None
    ) -> list[Explanation]:
        for _ in range(200):
            check()
            time.sleep(0.05)
        return super().explain(rows, task_names=task_names, top_features=top_features, check=check)


def test_explanation_ends_with_the_deadline(ask: Ask, serve_app: Any, bundle: ModelBundle) -> None:
    ranker = Ranker(bundle)
    ranker.explainer = SlowExplainer(bundle.model, bundle.encoder, ranker._decoder, "fp32")

    with serve_app(create_app(ranker)) as url:
        start_s = time.perf_counter()
        late = ask(f"{url}/v1/rank", EXPLAINED, {"X-Deadline-Ms": "2000"})
        took_s = time.perf_counter() - start_s
        plain = ask(f"{url}/v1/rank", REQUEST)
        page = ask(f"{url}/metrics").text

    assert (late.status, plain.status) == (504, 200)
    assert re.fullmatch(
        r"ranked, but not explained after \d+ ms, .* 2000 ms \(X-Deadline-Ms\)", late.document["detail"]
    )
    assert took_s < 8
    assert 'recmoe_refused_total{reason="late"} 1.0' in page


def test_arrow_has_explanations_in_a_nested_column(ask: Ask, ask_bytes: Ask, url: str) -> None:
    document = {**EXPLAINED, "top_k": 2, "tasks": ["cvr", "ctr"]}

    _, content = ask_bytes(f"{url}/v1/rank", json.dumps(document).encode(), {"Accept": ARROW})
    plain = ask(f"{url}/v1/rank", document).document

    table = pa.ipc.open_stream(content).read_all()
    found = table.column("explanation").to_pylist(maps_as_pydicts="strict")
    assert table.column_names == ["item_id", "score", "cvr", "ctr", "explanation"]
    assert found == [item["explanation"] for item in plain["items"]]
    assert "items" not in json.loads(table.schema.metadata[b"recmoe"])


def test_arrow_has_the_type_of_explanations_where_there_are_no_gates(
    ask_bytes: Ask, serve_app: Any, ids_bundle: ModelBundle
) -> None:
    body = json.dumps({"candidates": [{"item_id": 7}], "explain": True}).encode()

    with serve_app(create_app(Ranker(ids_bundle))) as url:
        _, content = ask_bytes(f"{url}/v1/rank", body, {"Accept": ARROW})

    field = pa.ipc.open_stream(content).read_all().schema.field("explanation")
    assert field.type.field("gates").type.value_type.field("weights").type == pa.map_(pa.string(), pa.float64())


@pytest.mark.parametrize("name", ["explain", "top_features"])
def test_tensors_have_no_place_for_explanations(ask: Ask, url: str, name: str) -> None:
    item = {"name": "item_id", "datatype": "INT64", "shape": [1], "data": [101]}

    answer = ask(f"{url}/v2/models/shop/infer", {"inputs": [item], "parameters": {name: True}})

    assert answer.status == 400
    assert answer.document["error"] == (f"parameters.{name}: tensors hold no explanations; POST /v1/rank gives them")


def test_openapi_document_types_request_and_answer(ask: Ask, url: str) -> None:
    document = ask(f"{url}/openapi.json").document

    content = document["paths"]["/v1/rank"]["post"]["requestBody"]["content"]["application/json"]
    asked = content["schema"]["properties"]
    schemas = document["components"]["schemas"]
    assert (asked["explain"]["type"], asked["explain"]["default"]) == ("boolean", False)
    assert [asked["top_features"][name] for name in ("default", "minimum", "maximum")] == [5, 1, 100]
    assert schemas["RankedItem"]["properties"]["explanation"]["anyOf"][0] == {
        "$ref": "#/components/schemas/Explanation"
    }
    assert set(schemas["TaskExplanation"]["properties"]) == {"unit", "predicted", "base", "features", "others"}
    assert set(schemas["GateWeights"]["properties"]) == {"level", "gate", "weights"}
    assert "<code>explain</code>" in ask(f"{url}/docs").text


def test_client_asks_for_explanations_and_reads_them(url: str, ranker: Ranker) -> None:
    expected = ranker.rank(RankRequest.parse({**EXPLAINED, "top_k": 1})).items[0].explanation

    with RankClient(url) as client:
        (item,) = client.rank(**REQUEST, explain=True, top_features=3, top_k=1).items
        table = client.rank_table(pa.table({"item_id": [101]}), explain=True)
        plain = client.rank(**REQUEST)

    assert item.explanation == expected
    assert isinstance(item.explanation, Explanation)
    assert len(table.column("explanation")[0]["tasks"]["ctr"]["features"]) == 5
    assert [one.explanation for one in plain.items] == [None] * 3


def test_client_hears_of_limits(strict_url: str) -> None:
    with RankClient(strict_url) as client, pytest.raises(RequestError, match="at most 2 are in one request") as wrong:
        client.rank(**REQUEST, explain=True)

    assert wrong.value.field == "explain"
