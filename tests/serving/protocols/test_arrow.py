"""Candidates as an Arrow stream are ranked as in JSON, bit by bit, and what is no such stream is refused in words."""

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recmoe.errors import RequestError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
from serving.app import create_app
from serving.protocols.arrow import Arrow

Ask = Callable[..., Any]

ARROW = "application/vnd.apache.arrow.stream"
USER = {"user_id": "u3", "age": 40, "tags": ["wool"]}
CONTEXT = {"hour": 12}
CANDIDATES = pa.table(
    {
        "item_id": pa.array([101, 102, 999, 103], pa.int32()),
        "price": pa.array([3.5, None, 1.0, 7.25]),
        "words": pa.array([["red", "silk"], None, [], ["new"]]),
    }
)


def stream(table: pa.Table, document: Mapping[str, Any] | bytes | None = None, **options: Any) -> bytes:
    """The bytes of a table, with the rest of a request in its metadata."""
    document = {"user": USER, "context": CONTEXT} if document is None else document
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    table = table.replace_schema_metadata({"recmoe": text})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def rank(ask: Ask, url: str, body: bytes, accept: str = "application/json") -> Any:
    return ask(f"{url}/v1/rank", body, {"Content-Type": ARROW, "Accept": accept})


def without_times(answer: Any) -> dict[str, Any]:
    document: dict[str, Any] = dict(answer.document)
    assert document.pop("timing_ms")["total"] > 0
    return document


@pytest.mark.parametrize(
    "wanted", [{}, {"top_k": 2, "tasks": ["cvr"], "score": "ctr", "request_id": "r1"}], ids=["all", "chosen"]
)
def test_stream_is_ranked_as_the_same_request_in_json(ask: Ask, url: str, wanted: dict[str, Any]) -> None:
    document = {"user": USER, "context": CONTEXT, **wanted}

    by_arrow = rank(ask, url, stream(CANDIDATES, document))
    by_json = ask(f"{url}/v1/rank", {**document, "candidates": CANDIDATES.to_pylist()})

    assert (by_arrow.status, by_arrow.kind) == (200, "application/json")
    assert without_times(by_arrow) == without_times(by_json)
    assert 'recmoe_ranked_lists_total{protocol="arrow"} ' in ask(f"{url}/metrics").text


def test_several_batches_are_one_list(ask: Ask, url: str) -> None:
    parts = pa.concat_tables([CANDIDATES.slice(0, 1), CANDIDATES.slice(1, 2), CANDIDATES.slice(3)])

    assert without_times(rank(ask, url, stream(parts))) == without_times(rank(ask, url, stream(CANDIDATES)))


def test_answer_is_a_stream_where_it_is_asked_for(ask_bytes: Ask, ask: Ask, url: str) -> None:
    document = {"user": USER, "context": CONTEXT, "candidates": CANDIDATES.to_pylist(), "top_k": 3, "request_id": "r"}

    kind, content = ask_bytes(f"{url}/v1/rank", json.dumps(document).encode(), {"Accept": f"text/x, {ARROW};q=0.9"})

    table = pa.ipc.open_stream(content).read_all()
    plain = ask(f"{url}/v1/rank", document).document
    rest = json.loads(table.schema.metadata[b"recmoe"])
    assert kind == ARROW
    assert table.column_names == ["item_id", "score", "ctr", "cvr", "ctcvr"]
    assert table.column("item_id").to_pylist() == [item["item_id"] for item in plain["items"]]
    assert table.column("score").to_pylist() == [item["score"] for item in plain["items"]]
    assert table.column("cvr").to_pylist() == [item["tasks"]["cvr"] for item in plain["items"]]
    assert {name: rest[name] for name in ("request_id", "model", "score", "warnings")} == {
        name: plain[name] for name in ("request_id", "model", "score", "warnings")
    }
    assert rest["timing_ms"].keys() == plain["timing_ms"].keys()


def test_task_called_score_keeps_its_column(ask_bytes: Ask, serve_app: Any, ids_bundle: ModelBundle) -> None:
    body = json.dumps({"candidates": [{"item_id": 7}]}).encode()
    with serve_app(create_app(Ranker(ids_bundle))) as url:
        _, content = ask_bytes(f"{url}/v1/rank", body, {"Accept": ARROW})

    table = pa.ipc.open_stream(content).read_all()
    assert table.column_names == ["item_id", "ranking_score", "score", "buy"]


@pytest.mark.parametrize(
    ("table", "document", "field", "detail"),
    [
        (CANDIDATES, b"{", "body", "body: is not JSON"),
        (CANDIDATES, {"users": {}}, "users", "users: unknown field users, did you mean user?"),
        (CANDIDATES, {"candidates": []}, "candidates", "candidates: unknown field candidates, "),
        (CANDIDATES, {"user": {"age": "x"}}, "user.age", 'user.age: expected a finite number, found "x"'),
        (CANDIDATES, {"top_k": 0}, "top_k", "top_k: input should be greater than 0, found 0"),
        (CANDIDATES.slice(0, 0), {}, "candidates", "candidates: there are none"),
        (pa.table({"price": [1.0]}), {}, "candidates.item_id[0]", "candidates.item_id[0]: is missing; it names the"),
        (pa.table({"item_id": [1, None]}), {}, "candidates.item_id[1]", "candidates.item_id[1]: is missing"),
        (pa.table({"item_id": [1], "age": [1]}), {}, "candidates.age", "candidates.age: belongs in user"),
        (
            pa.table({"item_id": [1, 2], "price": ["a", "b"]}),
            {},
            "candidates.price[0]",
            'candidates.price[0]: expected a finite number, found "a", of type string',
        ),
        (pa.table([[1], [2]], ["item_id", "item_id"]), {}, "candidates.item_id", "candidates.item_id: is there twice"),
    ],
)
def test_request_that_does_not_fit_is_named_by_column_and_row(
    ask: Ask, url: str, table: pa.Table, document: Any, field: str, detail: str
) -> None:
    answer = rank(ask, url, stream(table, document))

    assert (answer.status, answer.kind) == (422, "application/problem+json")
    assert answer.document["field"] == field
    assert answer.document["detail"].startswith(detail)


def with_type(type_: pa.DataType) -> pa.Table:
    return pa.table({"item_id": pa.array([1]), "x": pa.nulls(1, type_)})


GOOD = stream(CANDIDATES)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "is cut: an Arrow stream ends with a mark"),
        (b"hello, world", "is no Arrow stream: a message does not begin with its mark"),
        (GOOD[:-8], "is cut: an Arrow stream ends with a mark"),
        (GOOD[: len(GOOD) // 2], "is cut, or no Arrow stream"),
        (GOOD + GOOD, f"goes on for {len(GOOD)} bytes after the end of its stream"),
        (GOOD[-8:], "is an Arrow stream without a schema"),
        (struct.pack("<ii", -1, 2**31 - 1) + GOOD, "is cut, or no Arrow stream: a head is longer"),
        (struct.pack("<ii", -1, -5) + GOOD, "is cut, or no Arrow stream: a head is longer"),
        (struct.pack("<iiI", -1, 4, 2**32 - 1), "is no Arrow stream: the head of a message refers to what is not"),
        (struct.pack("<iiIi", -1, 8, 4, 2**31 - 1), "is no Arrow stream: the head of a message refers to what is not"),
        (stream(CANDIDATES, compression="zstd"), "has compressed buffers, whose size nobody knows before"),
        (stream(with_type(pa.dictionary(pa.int8(), pa.string()))), "column 1 is a dictionary; send plain columns"),
        (stream(with_type(pa.list_(pa.list_(pa.int8())))), "column 3 is a type that is not read; send plain columns"),
        (stream(with_type(pa.struct({"a": pa.int8()}))), "column 1 is a type that is not read"),
        (stream(with_type(pa.run_end_encoded(pa.int32(), pa.int8()))), "column 1 is a type that is not read"),
        (stream(with_type(pa.string_view())), "column 1 is a type that is not read"),
        (stream(pa.table([[1]] * 1001, list(map(str, range(1001))))), "has more than 1000 columns"),
        (stream(pa.concat_tables([CANDIDATES] * 101)), "has more than 100 batches; join them"),
    ],
)
def test_stream_that_is_not_read_says_why(ask: Ask, url: str, body: bytes, detail: str) -> None:
    answer = rank(ask, url, body)

    assert (answer.status, answer.document["field"]) == (422, "body"), answer.text
    assert answer.document["detail"].startswith(f"body: {detail}")


def test_bytes_of_a_stream_may_be_anything(ranker: Ranker) -> None:
    """Every answer to a damaged stream is that of the ranker or a RequestError; none is another fault."""
    random, arrow = np.random.default_rng(5), Arrow(max_values=10_000)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(3000):
        body = bytearray(GOOD)
        for place in random.integers(0, len(body), random.integers(1, 4)):
            body[place] = random.choice([0, 1, 127, 128, 255, random.integers(256)])
        try:
            ranker.decode(arrow.read(ranker, bytes(body)))
            outcomes["read"] += 1
        except RequestError:
            outcomes["refused"] += 1

    assert min(outcomes.values()) > 300
