"""KServe's protocol over HTTP: tensors score as JSON's candidates do, and its own client is content."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
from serving.app import create_app
from serving.settings import ServeSettings

Ask = Callable[..., Any]

INFER = "v2/models/shop/infer"
ROWS: dict[str, Any] = {
    "user": {"user_id": "u3", "age": 40, "tags": ["wool", "silk"]},
    "context": {"hour": 12},
    "candidates": {"item_id": [101, 102, 999], "price": [3.5, None, 1.0], "words": [["red", "silk"], [], ["new"]]},
}
TENSORS: list[dict[str, Any]] = [
    {"name": "user_id", "datatype": "BYTES", "shape": [1], "data": ["u3"]},
    {"name": "age", "datatype": "INT64", "shape": [3], "data": [40, 40, 40]},
    {"name": "tags", "datatype": "BYTES", "shape": [1, 2], "data": [["wool", "silk"]]},
    {"name": "hour", "datatype": "FP32", "shape": [1, 1], "data": [12]},
    {"name": "item_id", "datatype": "INT64", "shape": [3], "data": [101, 102, 999]},
    {"name": "price", "datatype": "FP64", "shape": [3, 1], "data": [3.5, None, 1]},
    {"name": "words", "datatype": "BYTES", "shape": [3], "data": ["red", "silk", "new"]},
    {"name": "words:lengths", "datatype": "INT32", "shape": [3], "data": [2, 0, 1]},
]
ITEM = {"name": "item_id", "datatype": "INT64", "shape": [2], "data": [101, 102]}


def outputs_of(answer: Any) -> dict[str, list[Any]]:
    return {output["name"]: output["data"] for output in answer.document["outputs"]}


def by_item(answer: Any) -> dict[Any, Any]:
    return {item["item_id"]: item for item in answer.document["items"]}


def test_tensors_are_scored_as_candidates_of_json(ask: Ask, url: str) -> None:
    answer = ask(f"{url}/{INFER}", {"id": "r1", "inputs": TENSORS, "parameters": {"top_k": 2, "score": "cvr"}})
    plain = ask(f"{url}/v1/rank", {**ROWS, "score": "cvr"})

    items, found = by_item(plain), outputs_of(answer)
    ids = ROWS["candidates"]["item_id"]
    assert list(found) == ["ctr", "cvr", "ctcvr", "score", "order"]
    for task in ("ctr", "cvr", "ctcvr"):
        assert found[task] == [items[item]["tasks"][task] for item in ids]
    assert found["score"] == [items[item]["score"] for item in ids]
    assert [ids[place] for place in found["order"]] == [item["item_id"] for item in plain.document["items"]][:2]
    document = answer.document
    assert (document["model_name"], document["model_version"], document["id"]) == ("shop", "4", "r1")
    assert document["parameters"]["score"] == "cvr"
    assert json.loads(document["parameters"]["warnings"]) == plain.document["warnings"]
    assert [output["datatype"] for output in document["outputs"]] == ["FP32", "FP32", "FP32", "FP64", "INT64"]
    page = ask(f"{url}/metrics").text
    assert 'recmoe_ranked_lists_total{protocol="kserve"} 1.0' in page
    assert 'recmoe_rank_requests_total{code="200",model="shop",version="4"} 2.0' in page


def triton_inputs(*, binary: bool) -> list[Any]:
    inputs = []
    for tensor in TENSORS:
        given = [np.nan if value is None else value for value in np.array(tensor["data"], object).reshape(-1)]
        dtype = {"BYTES": np.object_, "INT64": np.int64, "INT32": np.int32, "FP32": np.float32, "FP64": np.float64}
        values = np.array(given, dtype[tensor["datatype"]]).reshape(tensor["shape"])
        if tensor["name"] == "price" and not binary:
            # Triton's client writes NaN as JSON does not know it.
            continue
        inputs.append(triton.InferInput(tensor["name"], tensor["shape"], tensor["datatype"]))
        inputs[-1].set_data_from_numpy(values, binary_data=binary)
    return inputs


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_gets_the_scores_of_json(ask: Ask, url: str, binary: bool) -> None:
    candidates = {name: ROWS["candidates"][name] for name in ("item_id", "words", *(["price"] if binary else []))}
    items = by_item(ask(f"{url}/v1/rank", {**ROWS, "candidates": candidates}))

    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        is_there = client.is_server_live(), client.is_server_ready(), client.is_model_ready("shop", "4")
        metadata = client.get_model_metadata("shop")
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("cvr", "order", "score")]
        result = client.infer("shop", triton_inputs(binary=binary), outputs=outputs, request_id="r", model_version="4")
        whole = client.infer("shop", triton_inputs(binary=binary))

    assert is_there == (True, True, True)
    assert metadata["versions"] == ["4"]
    assert {"name": "words", "datatype": "BYTES", "shape": [-1, -1]} in metadata["inputs"]
    assert {"name": "tags", "datatype": "BYTES", "shape": [1, -1]} in metadata["inputs"]
    assert [output["name"] for output in metadata["outputs"]] == ["ctr", "cvr", "ctcvr", "score", "order"]
    assert result.as_numpy("cvr").tolist() == [items[item]["tasks"]["cvr"] for item in (101, 102, 999)]
    assert result.as_numpy("score").tolist() == [items[item]["score"] for item in (101, 102, 999)]
    assert [(101, 102, 999)[place] for place in result.as_numpy("order")] == list(items)
    assert result.as_numpy("ctr") is None
    assert whole.as_numpy("ctr").tolist() == [items[item]["tasks"]["ctr"] for item in (101, 102, 999)]


def test_tritons_client_hears_what_is_wrong(url: str) -> None:
    inputs = [triton.InferInput("item_id", [1], "BYTES").set_data_from_numpy(np.array(["x"], object))]

    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        with pytest.raises(InferenceServerException, match=r"candidates.item_id\[0\]: expected an integer \(int64\)"):
            client.infer("shop", inputs)
        with pytest.raises(InferenceServerException, match='there is no model "other", the server has shop'):
            client.infer("other", inputs)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("models/other", 'there is no model "other", the server has shop'),
        ("models/shop/versions/5", 'there is no version "5" of shop, the server has 4'),
        ("models/shop/versions/5/ready", 'there is no version "5" of shop, the server has 4'),
        ("models", "GET /v2/models: see /docs for what there is"),
    ],
)
def test_what_is_not_there_is_said_as_the_protocol_says_errors(ask: Ask, url: str, path: str, error: str) -> None:
    answer = ask(f"{url}/v2/{path}")

    assert (answer.status, answer.document) == (404, {"error": error})


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("health/live", {"live": True}),
        ("health/ready", {"ready": True}),
        ("models/shop/ready", {"name": "shop", "ready": True}),
        ("models/shop/versions/4/ready", {"name": "shop", "ready": True}),
    ],
)
def test_state_is_told(ask: Ask, url: str, path: str, document: Any) -> None:
    answer = ask(f"{url}/v2/{path}")

    assert (answer.status, answer.document) == (200, document)
    assert ask(f"{url}/v2").document["extensions"] == ["binary_tensor_data"]


def changed(**changes: Any) -> list[dict[str, Any]]:
    return [{**ITEM, **changes}]


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ([], "body: expected an object, found a list"),
        ({}, "candidates: there are none"),
        ({"inputs": [ITEM], "x": 1}, 'body: has the unknown field "x"; there are id, parameters, inputs, outputs'),
        ({"inputs": {}}, "inputs: expected a list, found an object"),
        ({"inputs": [ITEM] * 1001}, "inputs: has 1001 elements, at most 1000 are read"),
        ({"inputs": [1]}, "inputs[0]: expected an object, found 1"),
        ({"inputs": changed(name=None)}, "inputs[0].name: expected a string, found null"),
        ({"inputs": changed(datatype="BF16")}, "inputs.item_id: datatype BF16 is not read; there are BOOL, UINT8"),
        ({"inputs": changed(shape=["2"])}, "inputs[0].shape: expected whole numbers"),
        ({"inputs": changed(shape=[])}, "inputs.item_id: has the shape []; give one axis, or two for lists"),
        ({"inputs": changed(shape=[-2])}, "inputs.item_id: has the shape [-2]; give one axis, or two"),
        ({"inputs": changed(shape=[3])}, "inputs.item_id: has 2 elements, its shape [3] says 3"),
        ({"inputs": changed(shape=[2**40, 2**40])}, "body: has 1208925819614629174706176 elements, at most 510000"),
        ({"inputs": changed(data=5)}, "inputs.item_id: data: expected a list, found 5"),
        ({"inputs": changed(data=[1, "x"])}, 'inputs.item_id[1]: expected an integer (int64), found "x"'),
        ({"inputs": changed(data=[[1, 2]], shape=[2, 1])}, "inputs.item_id: data: expected 2 lists of 1 elements"),
        ({"inputs": changed(parameters={"x": 1})}, 'inputs[0].parameters: has the unknown field "x"'),
        ({"inputs": changed(parameters={"binary_data_size": 16})}, "inputs.item_id: binary_data_size is 16, 0 bytes"),
        ({"inputs": [ITEM, ITEM]}, "inputs.item_id: is there twice"),
        ({"inputs": changed(shape=[1, 2])}, "inputs.item_id: has the shape [1, 2] for 1 candidates; give one value"),
        (
            {"inputs": [ITEM, {"name": "price", "datatype": "FP32", "shape": [3], "data": [1, 2, 3]}]},
            "inputs.price: has 3 rows, item_id has 2; give one each",
        ),
        (
            {"inputs": [ITEM, {"name": "age", "datatype": "FP32", "shape": [2], "data": [1, 2]}]},
            "inputs.age: belongs to all candidates: give one value, or the same one for each of them",
        ),
        (
            {"inputs": [ITEM, {"name": "tags", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "a"]}]},
            "inputs.tags: has the shape [2, 1]; there is one list: give [1, LENGTH]",
        ),
        (
            {"inputs": [*TENSORS[:-1], {**TENSORS[-1], "data": [1, 1, 2]}]},
            "inputs.words:lengths: adds up to 4, words has 3 elements",
        ),
        (
            {"inputs": [*TENSORS[:-1], {**TENSORS[-1], "data": [-1, 1, 3]}]},
            "inputs.words:lengths: adds up to 3, words has 3 elements",
        ),
        (
            {"inputs": [*TENSORS[:-1], {**TENSORS[-1], "datatype": "FP32"}]},
            "inputs.words:lengths: says how long the lists of words are: give whole numbers for it",
        ),
        ({"inputs": [ITEM], "outputs": [{"name": "ct"}]}, "outputs[0]: unknown output ct, did you mean ctr?"),
        ({"inputs": [ITEM], "outputs": [{"name": "ctr", "parameters": {"classification": 2}}]}, "outputs[0].parameter"),
        ({"inputs": [ITEM], "parameters": {"topk": 1}}, "parameters.topk: unknown parameter topk, did you mean top_k?"),
        ({"inputs": [ITEM], "parameters": {"top_k": 0}}, "top_k: input should be greater than 0, found 0"),
        ({"inputs": [ITEM], "parameters": {"score": "x"}}, "score: unknown score x"),
        ({"inputs": [ITEM], "id": 7}, "request_id: input should be a valid string, found 7"),
    ],
)
def test_wrong_request_is_a_400_in_words(ask: Ask, url: str, document: Any, error: str) -> None:
    answer = ask(f"{url}/{INFER}", document)

    assert (answer.status, list(answer.document)) == (400, ["error"])
    assert answer.document["error"].startswith(error)


def binary(datatype: str, shape: list[int], data: bytes, *, size: int | None = None) -> tuple[bytes, dict[str, str]]:
    size = len(data) if size is None else size
    tensor = {"name": "item_id", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + data, {"Inference-Header-Content-Length": str(len(head))}


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (binary("INT64", [2], b"a" * 15), "inputs.item_id: has 15 bytes; 2 elements of INT64 take 16"),
        (binary("INT64", [1], b"a" * 8, size=9), "inputs.item_id: binary_data_size is 9, 8 bytes are left of the body"),
        (binary("INT64", [1], b"a" * 9, size=8), "body: goes on for 1 bytes after the last input"),
        (binary("BYTES", [1], b"\1\0\0"), "inputs.item_id: is cut, or no sequence of texts"),
        (binary("BYTES", [1], struct.pack("<I", 2**32 - 1)), "inputs.item_id: is cut, or no sequence of texts"),
        (binary("BYTES", [1], struct.pack("<I", 1) + b"\xff"), "inputs.item_id: holds what is not UTF-8"),
        (binary("BYTES", [2], struct.pack("<I", 1) + b"a"), "inputs.item_id: has 1 elements, its shape [2] says 2"),
        (binary("BYTES", [1], struct.pack("<I", 0) * 9), "inputs.item_id: is cut, or no sequence of texts"),
        ((b"{}", {"Inference-Header-Content-Length": "3"}), "Inference-Header-Content-Length: is 3, the body has 2"),
        ((b"{}", {"Inference-Header-Content-Length": "-3"}), "Inference-Header-Content-Length: expected a number of b"),
    ],
)
def test_wrong_binary_data_is_a_400_in_words(ask: Ask, url: str, request_: Any, error: str) -> None:
    answer = ask(f"{url}/{INFER}", *request_)

    assert answer.status == 400
    assert answer.document["error"].startswith(error)


@pytest.mark.parametrize("datatype", ["INT8", "UINT8", "INT32", "UINT64", "FP16", "FP32", "FP64"])
def test_number_of_any_datatype_is_the_same_id(ask: Ask, url: str, datatype: str) -> None:
    values = np.array([101, 102], {"FP16": "f2", "FP32": "f4", "FP64": "f8"}.get(datatype, datatype.lower()))

    found = outputs_of(ask(f"{url}/{INFER}", *binary(datatype, [2], values.tobytes())))

    assert found == outputs_of(ask(f"{url}/{INFER}", {"inputs": [ITEM]}))


@pytest.mark.parametrize(
    ("tensor", "error"),
    [
        ({"name": "item_id", "shape": [10_001]}, "candidates: 10001 given, at most 10000 are ranked in one request"),
        ({"name": "words", "shape": [10_001, 1]}, "candidates: 10001 given, at most 10000 are ranked in one request"),
        ({"name": "words:lengths", "shape": [10_001]}, "candidates: 10001 given, at most 10000 are ranked in one"),
        ({"name": "tags", "shape": [1, 10_001]}, "inputs.tags: is a list of 10001, at most 10000 are read"),
    ],
)
def test_too_many_rows_are_refused_before_their_elements_are_looked_at(
    ask: Ask, url: str, tensor: dict[str, Any], error: str
) -> None:
    answer = ask(f"{url}/{INFER}", {"inputs": [{**tensor, "datatype": "INT64", "data": "no elements"}]})

    assert answer.status == 400
    assert error in answer.document["error"]


def test_elements_of_an_input_that_the_model_does_not_know_are_not_looked_at(ask: Ask, url: str) -> None:
    unknown = {"name": "colour", "datatype": "INT64", "shape": [9], "data": ["red"]}

    answer = ask(f"{url}/{INFER}", {"inputs": [ITEM, unknown]})

    assert answer.status == 200
    warnings = json.loads(answer.document["parameters"]["warnings"])
    assert [one["count"] for one in warnings if one["feature"] == "colour"] == [2]


def test_limits_of_the_server_hold_for_tensors_too(ask: Ask, serve_app: Any, ranker: Ranker) -> None:
    with serve_app(create_app(ranker, ServeSettings(max_body_bytes=10_000, max_values=100))) as url:
        answers = [
            ask(f"{url}/{INFER}", b" " * 10_001),
            ask(f"{url}/{INFER}", b"[" * 101),
            ask(f"{url}/{INFER}", *binary("INT8", [101], b"\0" * 101)),
            ask(f"{url}/{INFER}", b"", {"Content-Encoding": "gzip"}),
            ask(f"{url}/{INFER}", {"inputs": [ITEM]}, {"X-Deadline-Ms": "x"}),
        ]

    assert [answer.status for answer in answers] == [413, 400, 400, 415, 400]
    assert [answer.document["error"].split("; ")[0] for answer in answers] == [
        "the request has more than 10000 bytes",
        "body: has 101 commas and opening brackets, at most 100 are read",
        "body: has 101 elements, at most 100 are read",
        "Content-Encoding: bodies are read as they are",
        'X-Deadline-Ms: expected milliseconds above 0, found "x"',
    ]


def test_token_is_asked_for_but_by_probes(ask: Ask, serve_app: Any, ranker: Ranker, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("secret\n")
    with serve_app(create_app(ranker, ServeSettings(token_file=tmp_path / "tokens"))) as url:
        probes = [ask(f"{url}/v2/health/{probe}").status for probe in ("live", "ready")]
        refused = ask(f"{url}/v2/models/shop")
        answered = ask(f"{url}/v2/models/shop", headers={"Authorization": "Bearer secret"})

    assert probes == [200, 200]
    assert (refused.status, refused.document) == (401, {"error": "send the header Authorization: Bearer TOKEN"})
    assert answered.status == 200


def test_model_without_a_version_has_none(ask: Ask, serve_app: Any, ids_bundle: ModelBundle) -> None:
    with serve_app(create_app(Ranker(ids_bundle))) as url:
        known = ask(f"{url}/v2/models/ids")
        asked = ask(f"{url}/v2/models/ids/versions/1")
        answer = ask(f"{url}/v2/models/ids/infer", {"inputs": [ITEM]})

    assert known.document["versions"] == []
    assert [output["name"] for output in known.document["outputs"]] == ["score", "buy", "ranking_score", "order"]
    assert asked.document["error"] == 'there is no version "1" of ids, the server has one without a number'
    assert "model_version" not in answer.document
    assert list(outputs_of(answer)) == ["score", "buy", "ranking_score", "order"]
