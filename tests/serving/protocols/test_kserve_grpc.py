"""KServe's protocol over gRPC: Triton's client gets the scores of HTTP; what is wrong is a status and words."""

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from recmoe.errors import ConfigError, ServingError, StoreError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
from serving.app import create_app
from serving.models.holder import ServedModels
from serving.protocols.wire import has_text
from serving.server import serve
from serving.settings import ServeSettings, read_settings

Served = Callable[..., AbstractContextManager[tuple[str, str]]]

ITEMS = [101, 102, 999]
ROWS = {"user": {"user_id": "u3", "age": 40}, "candidates": {"item_id": ITEMS, "price": [3.5, 2.0, 1.0]}}
INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def serve_grpc(serve_app: Any, ranker: Ranker) -> Served:
    """Serves the shop's model over both: ``with serve_grpc(queue=2) as (url, address)``."""

    @contextmanager
    def run(source: Any = ranker, **settings: Any) -> Iterator[tuple[str, str]]:
        app = create_app(source, ServeSettings(grpc_port=0, **settings))
        with serve_app(app) as url:
            yield url, f"127.0.0.1:{app.state.grpc_port}"

    return run


@pytest.fixture(scope="module")
def servers(serve_grpc: Served) -> Iterator[tuple[str, str]]:
    with serve_grpc() as served:
        yield served


@pytest.fixture
def client(servers: tuple[str, str]) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(servers[1]) as client:
        yield client


def tensor(name: str, values: Any) -> triton.InferInput:
    values = np.array(values, object if isinstance(np.ravel(values)[0], str) else None)
    datatype = {"O": "BYTES", "l": "INT64", "d": "FP64"}[values.dtype.char]
    return triton.InferInput(name, list(values.shape), datatype).set_data_from_numpy(values)


def inputs() -> list[triton.InferInput]:
    columns = {**ROWS["candidates"], **{name: [value] for name, value in ROWS["user"].items()}}
    return [tensor(name, values) for name, values in columns.items()]


def test_tritons_client_gets_the_scores_of_http(
    ask: Any, client: triton.InferenceServerClient, servers: tuple[str, str]
) -> None:
    is_there = client.is_server_live(), client.is_server_ready(), client.is_model_ready("shop", "4")
    metadata = client.get_model_metadata("shop", as_json=True)
    result = client.infer("shop", inputs(), request_id="r", parameters={"score": "cvr", "top_k": 2})
    some = client.infer("shop", inputs(), outputs=[triton.InferRequestedOutput("cvr")], model_version="4")

    plain = ask(f"{servers[0]}/v1/rank", {**ROWS, "score": "cvr"}).document
    items = {item["item_id"]: item for item in plain["items"]}
    assert is_there == (True, True, True)
    assert client.get_server_metadata().name == "recmoe"
    assert (metadata["versions"], len(metadata["inputs"]), metadata["outputs"][0]["name"]) == (["4"], 7, "ctr")
    for task in ("ctr", "cvr", "ctcvr"):
        assert result.as_numpy(task).tolist() == [items[item]["tasks"][task] for item in ITEMS]
    assert result.as_numpy("score").tolist() == [items[item]["score"] for item in ITEMS]
    assert [ITEMS[place] for place in result.as_numpy("order")] == [item["item_id"] for item in plain["items"]][:2]
    answer = result.get_response()
    assert (answer.model_name, answer.model_version, answer.id) == ("shop", "4", "r")
    assert json.loads(answer.parameters["warnings"].string_param) == plain["warnings"]
    assert [output.name for output in some.get_response().outputs] == ["cvr"]
    assert 'recmoe_ranked_lists_total{protocol="kserve_grpc"} 2.0' in ask(f"{servers[0]}/metrics").text


def request(**changes: Any) -> Any:
    """A message with lists of numbers in place of bytes."""
    message = service_pb2.ModelInferRequest(**{"model_name": "shop", **changes})
    for name, datatype, kind, values in (
        ("item_id", "INT64", "int64_contents", ITEMS),
        ("price", "FP64", "fp64_contents", ROWS["candidates"]["price"]),
        ("user_id", "BYTES", "bytes_contents", [b"u3"]),
        ("age", "INT32", "int_contents", [40]),
    ):
        given = message.inputs.add(name=name, datatype=datatype, shape=[len(values)])
        getattr(given.contents, kind).extend(values)
    return message


def call(address: str, message: Any, **options: Any) -> Any:
    """The answer to a message that no client would write."""
    with grpc.insecure_channel(address) as channel:
        content = message if isinstance(message, bytes) else message.SerializeToString()
        answer = channel.unary_unary(INFER)(content, timeout=30, **options)
    return service_pb2.ModelInferResponse.FromString(answer)


def refusal(address: str, message: Any, **options: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call(address, message, **options)
    return raised.value.code(), raised.value.details()


def test_lists_of_numbers_score_as_bytes_and_are_answered_alike(
    client: triton.InferenceServerClient, servers: tuple[str, str]
) -> None:
    expected = client.infer("shop", inputs())

    answer = call(servers[1], request())

    assert not answer.raw_output_contents
    found = {output.name: output.contents for output in answer.outputs}
    assert list(found["ctr"].fp32_contents) == expected.as_numpy("ctr").tolist()
    assert list(found["score"].fp64_contents) == expected.as_numpy("score").tolist()
    assert list(found["order"].int64_contents) == expected.as_numpy("order").tolist()


def changed(change: Callable[[Any], Any]) -> Any:
    message = request()
    change(message)
    return message


@pytest.mark.parametrize(
    ("message", "details"),
    [
        (b"\x0a", "body: is cut, or no message of the protocol"),
        (b"\x0a\x05a", "body: is cut, or no message of the protocol"),
        (b"\x0b", "body: is cut, or no message of the protocol"),
        (b"\xff" * 11, "body: is cut, or no message of the protocol"),
        (b"\x0a\x01\xff", "body: is no message of the protocol: "),
        (b"\x2a\x00" * 10_001, "body: has more than 10000 fields; give fewer inputs"),
        (b"\x2a\x04\x22\x00\x22\x00" * 4_000, "body: has more than 10000 fields; give fewer inputs"),
        (
            changed(lambda m: m.inputs[0].contents.int64_contents.extend([1] * 2**20)),
            "body: has inputs of more than 1048576 bytes; give their elements in raw_input_contents",
        ),
        (b"\x0a\x04shop" + b"\x2a\x00" * 1001, "inputs: has 1001 elements, at most 1000 are read"),
        (b"\x0a\x04shop", "candidates: there are none"),
        (changed(lambda m: m.inputs[0].parameters["x"].SetInParent()), "inputs[0].parameters: there are none, found x"),
        (changed(lambda m: m.parameters["topk"].SetInParent()), "parameters.topk: unknown parameter topk, did you"),
        (changed(lambda m: m.outputs.add(name="x")), "outputs[0]: unknown output x, there are ctr, cvr"),
        (changed(lambda m: m.raw_input_contents.append(b"")), "raw_input_contents: has 1 elements for 4 inputs"),
        (changed(lambda m: m.raw_input_contents.extend([b""] * 4)), "inputs.item_id: has contents beside raw_input"),
        (changed(lambda m: setattr(m.inputs[1], "datatype", "FP16")), "inputs.price: of FP16 has no contents in the"),
        (changed(lambda m: setattr(m.inputs[1], "datatype", "FP32")), "inputs.price: has 0 bytes; 3 elements of FP32"),
        (changed(lambda m: m.inputs[2].contents.bytes_contents.append(b"")), "inputs.user_id: has 2 elements, its"),
        (changed(lambda m: m.inputs[3].shape.append(2**62)), "body: has 4611686018427387904 elements, at most 510000"),
        (changed(lambda m: m.inputs[0].shape.__setitem__(0, -1)), "inputs.item_id: has the shape [-1]"),
    ],
)
def test_message_that_does_not_fit_is_an_invalid_argument(servers: tuple[str, str], message: Any, details: str) -> None:
    code, found = refusal(servers[1], message)

    assert (code, found[: len(details)]) == (grpc.StatusCode.INVALID_ARGUMENT, details)


def test_other_models_and_forms_are_refused(ask: Any, servers: tuple[str, str]) -> None:
    with triton.InferenceServerClient(servers[1]) as client:
        with pytest.raises(InferenceServerException, match=r'NOT_FOUND.* there is no version "5" of shop'):
            client.infer("shop", inputs(), model_version="5")
        with pytest.raises(InferenceServerException, match='there is no model "other", the server has shop'):
            client.get_model_metadata("other")
        with pytest.raises(InferenceServerException, match=r"UNIMPLEMENTED.*gzip.* is disabled"):
            client.infer("shop", inputs(), compression_algorithm="gzip")

    assert 'recmoe_rank_requests_total{code="404",model="shop",version="4"}' in ask(f"{servers[0]}/metrics").text


def test_limits_of_the_server_hold_for_grpc_too(serve_grpc: Served) -> None:
    with serve_grpc(max_body_bytes=10_000, max_values=100) as (_, address):
        large = refusal(address, b"\x12\xa0\x9c\x01" + b"a" * 20_000)
        many = refusal(address, changed(lambda m: m.inputs[0].shape.__setitem__(0, 101)))

    assert large[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert many == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "body: has 101 elements, at most 100 are read; send fewer candidates at once, or raise the server's max_values",
    )


def test_bytes_in_hand_are_limited_over_both_ports(serve_grpc: Served, bundle: ModelBundle) -> None:
    ranker = HeldRanker(bundle)
    size = request().ByteSize()
    limits = {"max_body_bytes": size + 20, "max_held_bytes": size + 20}
    with serve_grpc(ranker, **limits) as (_, address), ThreadPoolExecutor(1) as callers:
        under_way = callers.submit(call, address, request())
        assert ranker.has_begun.acquire(timeout=30)
        refused = refusal(address, request())
        ranker.may_go_on.set()
        answered = under_way.result()

    assert refused == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "too many bytes of other requests are in hand; try again later",
    )
    assert len(answered.outputs) == 5


def test_token_is_asked_for_but_by_probes(serve_grpc: Served, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("secret\n")
    with serve_grpc(token_file=tmp_path / "tokens") as (_, address), triton.InferenceServerClient(address) as client:
        is_there = client.is_server_live(), client.is_server_ready()
        refused = refusal(address, request())
        wrong = refusal(address, request(), metadata=[("authorization", "Bearer other")])
        answered = client.infer("shop", inputs(), headers={"authorization": "Bearer secret"})

    assert is_there == (True, True)
    asks = (grpc.StatusCode.UNAUTHENTICATED, "send the metadata authorization: Bearer TOKEN")
    assert [refused, wrong] == [asks, asks]
    assert len(answered.as_numpy("ctr")) == 3


class HeldRanker(Ranker):
    """A ranker that is held up until it may go on."""

    def __init__(self, bundle: ModelBundle) -> None:
        super().__init__(bundle)
        self.may_go_on, self.has_begun = threading.Event(), threading.Semaphore(0)
        self.num_ranked = 0

    def rank_columns(self, *arguments: Any, **options: Any) -> Any:
        self.num_ranked += 1
        self.has_begun.release()
        assert self.may_go_on.wait(30)
        return super().rank_columns(*arguments, **options)


def test_full_queue_and_passed_deadlines_are_refused(ask: Any, serve_grpc: Served, bundle: ModelBundle) -> None:
    ranker = HeldRanker(bundle)
    with serve_grpc(ranker, threads=1, queue=1) as (url, address), ThreadPoolExecutor(3) as callers:
        under_way = callers.submit(call, address, request(id="first"))
        assert ranker.has_begun.acquire(timeout=30)
        with grpc.insecure_channel(address) as channel:
            gone = channel.unary_unary(INFER).future(request().SerializeToString(), timeout=30)
            while "recmoe_rank_queue 1.0" not in ask(f"{url}/metrics").text:
                pass
            full = refusal(address, request())
            gone.cancel()
            while "recmoe_rank_queue 0.0" not in ask(f"{url}/metrics").text:
                pass
        ranker.may_go_on.set()
        answer = under_way.result()
        page = ask(f"{url}/metrics").text

    assert full == (grpc.StatusCode.RESOURCE_EXHAUSTED, "1 requests wait already; try again later")
    assert answer.id == "first"
    assert ranker.num_ranked == 1
    assert 'recmoe_refused_total{reason="queue_full"} 1.0' in page
    assert 'recmoe_rank_requests_total{code="499",model="shop",version=""} 1.0' in page


def test_request_under_way_is_answered_when_the_server_stops(serve_grpc: Served, bundle: ModelBundle) -> None:
    ranker = HeldRanker(bundle)
    with ThreadPoolExecutor(1) as callers:
        with serve_grpc(ranker) as (_, address):
            under_way = callers.submit(call, address, request(id="last"))
            assert ranker.has_begun.acquire(timeout=30)
            threading.Timer(0.5, ranker.may_go_on.set).start()
        assert under_way.result().id == "last"


def test_server_without_a_model_is_not_ready(serve_grpc: Served, ranker: Ranker) -> None:
    may_go_on = threading.Event()

    def load() -> Ranker:
        may_go_on.wait(30)
        return ranker

    with serve_grpc(ServedModels(load)) as (_, address), triton.InferenceServerClient(address) as client:
        before = client.is_server_live(), client.is_server_ready()
        refused = refusal(address, request())
        may_go_on.set()
        while not client.is_server_ready():
            pass
        answer = call(address, request(id="now"))

    assert before == (True, False)
    assert refused == (grpc.StatusCode.UNAVAILABLE, "the model is being loaded and replayed")
    assert answer.id == "now"


def test_fault_of_the_server_is_told_without_its_inside(
    serve_grpc: Served, bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ranker = Ranker(bundle)

    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(ranker, "rank_columns", fail)
    with serve_grpc(ranker) as (_, address):
        found = refusal(address, request())

    assert found == (grpc.StatusCode.INTERNAL, "the server failed; its log says why")
    assert "ModelInfer failed" in caplog.text


def test_store_that_does_not_answer_is_unavailable(
    serve_grpc: Served, bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch, ask: Any
) -> None:
    ranker = Ranker(bundle)

    def away(_: Any) -> None:
        raise StoreError("redis://cache does not answer", side="item", num_ids=3)

    monkeypatch.setattr(ranker, "decode", away)
    with serve_grpc(ranker) as (url, address):
        found = refusal(address, request())
        page = ask(f"{url}/metrics").text

    assert found == (grpc.StatusCode.UNAVAILABLE, "redis://cache does not answer")
    assert 'recmoe_items_lookups_total{outcome="error"} 3.0' in page
    assert 'code="503"' in page


def test_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ServingError, match=f"port {port} on 127.0.0.1 cannot be used: .* another --grpc-port"):
            serve("nowhere", ServeSettings(port=0, grpc_port=port))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_free_port_is_taken_and_told(workers: str, bundle_path: Path, start_server: Callable[..., Any]) -> None:
    servers = [start_server(bundle_path, "--grpc-port", "0", "--workers", workers) for _ in range(2)]

    ports = []
    for server in servers:
        found = re.search(r"and over gRPC on 127\.0\.0\.1:(\d+)$", server.process.stdout.readline())
        assert found is not None
        ports.append(int(found[1]))
        with grpc.insecure_channel(f"127.0.0.1:{found[1]}") as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
            assert call(b"", timeout=20) == b"\x08\x01"

    assert len(set(ports)) == 2


def test_port_of_http_is_not_that_of_grpc() -> None:
    with pytest.raises(ConfigError, match="grpc_port: is the port of HTTP, 8000; give another"):
        read_settings(None, {"grpc_port": 8000})


def test_missing_package_is_named() -> None:
    code = (
        "import sys; sys.modules['grpc'] = None\n"
        "from serving.server import serve; from serving.settings import ServeSettings\n"
        "serve('nowhere', ServeSettings(port=0, grpc_port=8001))"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert "grpc_port needs the packages grpcio and protobuf: pip install 'recmoe[grpc]'" in run.stderr


def test_id_of_a_call_comes_back_and_is_in_its_log(serve_grpc: Served, caplog: pytest.LogCaptureFixture) -> None:
    answers = []
    with serve_grpc(log_slower_than_ms=0) as (_, address), grpc.insecure_channel(address) as channel:
        for given in ("call-7", "two words"):
            _, rpc = channel.unary_unary(INFER).with_call(
                request().SerializeToString(), timeout=30, metadata=(("x-request-id", given),)
            )
            answers.append(dict(rpc.trailing_metadata())["x-request-id"])

    (slow,) = [record for record in caplog.records if record.name == "serving.observability.slow"]
    assert answers[0] == "call-7"
    assert len(answers[1]) == 32
    assert vars(slow)["fields"]["protocol"] == "kserve_grpc"
    assert list(vars(slow)["fields"]["stages_ms"])[:2] == ["queue", "decode"]


def test_version_is_found_in_a_message_that_is_not_read_yet() -> None:
    message = service_pb2.ModelInferRequest(model_name="shop", id="2", raw_input_contents=[b"\x12\x01x"])
    unnamed = message.SerializeToString()
    message.model_version = "4"
    named = message.SerializeToString()

    assert (has_text(named, 2), has_text(unnamed, 2)) == (True, False)
    # Behind fields of every wire type: a number, eight bytes and four.
    assert has_text(b"\x50\x07" + b"\x59" + bytes(8) + b"\x5d" + bytes(4) + named, 2)
    # What is cut or no message holds nothing; that is said when it is read.
    assert not any(has_text(body, 2) for body in (b"", b"\xff", b"\x12", b"\x12\x00", named[:3]))
