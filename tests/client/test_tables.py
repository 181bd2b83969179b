"""A client ranks the rows of an Arrow table, or says why it cannot."""

import json
import subprocess
import sys
from typing import Any

import pyarrow as pa
import pytest

from recmoe.client import RankClient
from recmoe.client.arrow import stream_of, table_of
from recmoe.errors import CallError, RequestError

CANDIDATES = pa.table({"item_id": [17, 42]})


def test_candidates_are_columns_and_the_rest_is_metadata() -> None:
    coded = CANDIDATES.append_column("shop", pa.array(["a", "b"]).dictionary_encode())

    body = stream_of(coded, b'{"top_k":1}')

    sent = pa.ipc.open_stream(body).read_all()
    assert sent.to_pydict() == {"item_id": [17, 42], "shop": ["a", "b"]}
    assert sent.schema.field("shop").type == pa.string()
    assert sent.schema.metadata == {b"recmoe": b'{"top_k":1}'}
    assert pa.ipc.open_stream(stream_of(CANDIDATES.to_batches()[0], b"{}")).read_all().num_rows == 2


def test_request_says_in_which_form_it_comes_and_wants_its_answer(faults: Any) -> None:
    ranked = CANDIDATES.append_column("score", pa.array([0.5, 0.25]))
    with faults.server(faults.answer(200, stream_of(ranked, b"{}"))) as server, RankClient(server.url) as client:
        table = client.rank_table(CANDIDATES, user={"user_id": "u7"}, top_k=2)

    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert table.column("score").to_pylist() == [0.5, 0.25]
    assert b"\r\ncontent-type: application/vnd.apache.arrow.stream" in head.lower()
    assert b"\r\naccept: application/vnd.apache.arrow.stream" in head.lower()
    metadata = pa.ipc.open_stream(body).schema.metadata
    assert json.loads(metadata[b"recmoe"]) == {"user": {"user_id": "u7"}, "top_k": 2}


@pytest.mark.parametrize("content", [b"", b"{}", stream_of(CANDIDATES, b"{}")[:-40]])
def test_answer_that_is_no_table_of_items_is_an_error(faults: Any, content: bytes) -> None:
    with (
        faults.server(faults.answer(200, content)) as server,
        RankClient(server.url) as client,
        pytest.raises(CallError, match=r"answered what is not a table of items: .*; is it a server of recmoe"),
    ):
        client.rank_table(CANDIDATES)


def test_table_without_a_ranking_is_none() -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, CANDIDATES.schema) as writer:
        writer.write_table(CANDIDATES)

    with pytest.raises(ValueError, match="its schema says nothing of a ranking"):
        table_of(sink.getvalue().to_pybytes())


def test_request_that_does_not_fit_names_its_field(faults: Any) -> None:
    problem = {"detail": "candidates.price[1]: expected a finite number", "field": "candidates.price[1]"}
    with (
        faults.server(faults.answer(422, problem)) as server,
        RankClient(server.url) as client,
        pytest.raises(RequestError, match=r"candidates\.price\[1\]: expected a finite number") as raised,
    ):
        client.rank_table(CANDIDATES)

    assert raised.value.field == "candidates.price[1]"


def test_missing_pyarrow_is_named_and_the_rest_needs_none() -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from recmoe.client import RankClient\n"
        "RankClient('http://localhost:1').rank_table(None)"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "ServingError: rank_table needs pyarrow; install it, or use rank" in run.stderr
