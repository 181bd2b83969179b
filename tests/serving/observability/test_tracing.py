"""Spans of requests reach a collector over HTTP; without one nothing is imported."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from recmoe.errors import ServingError
from recmoe.ranking import Ranker
from serving.app import create_app
from serving.observability.tracing import tracing_of
from serving.settings import ServeSettings

REQUEST = {"user": {"user_id": "secret"}, "candidates": {"item_id": [101, 102], "price": [1, 2]}}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Takes spans as OpenTelemetry's collector does, and keeps them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.paths: set[str] = set()
        self.resources: list[dict[str, Any]] = []
        self.spans: list[Any] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.add(self.path)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.resources.append(values(resource.resource))
            self.server.spans += [span for scope in resource.scope_spans for span in scope.spans]
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


def values(message: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in message.attributes}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_request_is_a_span_of_its_callers_trace_and_its_stages_lie_within(
    collector: Collector, ranker: Ranker, serve_app: Any, ask: Any
) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "r1"}

    with serve_app(create_app(ranker, ServeSettings(otlp_endpoint=collector.url))) as url:
        ask(f"{url}/v1/rank", REQUEST, headers)
        ask(f"{url}/healthz", headers=headers)

    (root,) = [span for span in collector.spans if span.name == "rank"]
    stages = [span for span in collector.spans if span.parent_span_id == root.span_id]
    stages.sort(key=lambda span: span.start_time_unix_nano)
    assert collector.paths == {"/v1/traces"}
    assert collector.resources[0]["service.name"] == "recmoe"
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert root.parent_span_id.hex() == PARENT
    assert [span.name for span in stages] == ["read", "queue", "decode", "features", "model", "score", "write"]
    assert len(collector.spans) == 1 + len(stages)
    for span in stages:
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
    found = values(root)
    assert len(found.pop("recmoe.model.digest")) == 64
    assert found == {
        "http.request.method": "POST",
        "url.path": "/v1/rank",
        "http.response.status_code": 200,
        "recmoe.request_id": "r1",
        "recmoe.protocol": "json",
        "recmoe.candidates": 2,
        "recmoe.model.name": "shop",
        "recmoe.model.version": "4",
    }
    assert b"secret" not in b"".join(span.SerializeToString() for span in collector.spans)


def test_caller_decides_what_is_traced_and_faults_are_errors(
    collector: Collector, ranker: Ranker, serve_app: Any, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{collector.url}/")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-ranking")

    with serve_app(create_app(ranker)) as url:
        ask(f"{url}/v1/rank", REQUEST, {"traceparent": f"00-{TRACE}-{PARENT}-00"})
        ask(f"{url}/v1/rank", {}, {"traceparent": "nonsense"})
        late = ask(f"{url}/v1/rank", REQUEST, {"X-Deadline-Ms": "0.001"})

    status = {values(span)["http.response.status_code"]: span for span in collector.spans if span.name == "rank"}
    assert late.status == 504
    assert status.keys() == {422, 504}
    assert (status[422].status.code, status[504].status.code) == (0, 2)
    assert all(span.trace_id.hex() != TRACE and not span.parent_span_id for span in status.values())
    assert collector.resources[0]["service.name"] == "shop-ranking"


def test_collector_that_is_gone_neither_fails_a_request_nor_keeps_the_server(
    ranker: Ranker, serve_app: Any, ask: Any, collector: Collector
) -> None:
    with Collector() as gone:
        url_of_none = gone.url

    with serve_app(create_app(ranker, ServeSettings(otlp_endpoint=url_of_none))) as url:
        answer = ask(f"{url}/v1/rank", REQUEST)

    assert answer.status == 200
    assert collector.spans == []


def test_nothing_is_loaded_without_an_endpoint(bundle_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom fastapi.testclient import TestClient\n"
        "from recmoe.ranking import Ranker\nfrom serving.app import create_app\n"
        f"with TestClient(create_app(Ranker.load(Path({str(bundle_path)!r})))) as client:\n"
        f"    assert client.post('/v1/rank', json={REQUEST!r}).status_code == 200\n"
        # FastAPI imports the API by itself, which does nothing.
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    own = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}

    run = subprocess.run(
        [sys.executable, "-c", code], env=own, cwd=Path(__file__).parents[3], capture_output=True, text=True
    )

    assert (run.stdout.strip(), run.returncode) == ("[]", 0), run.stderr


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, ""),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector/v1/traces", "OTEL_SDK_DISABLED": "true"}, ""),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "no spans are sent: it takes grpc, and spans are sent as http/protobuf",
        ),
    ],
)
def test_environment_may_forbid_spans(
    environment: Mapping[str, str], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert tracing_of(None, environment) is None
    assert told in caplog.text
    assert bool(told) == bool(caplog.text)


def test_missing_packages_are_an_error_where_spans_are_asked_for_and_a_warning_where_they_may_be_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)

    with pytest.raises(ServingError, match=r"otlp_endpoint: spans need .*: pip install 'recmoe\[tracing\]'"):
        tracing_of("http://localhost:4318")
    with caplog.at_level(logging.WARNING):
        found = tracing_of(None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"})

    assert found is None
    assert "the environment names a collector, but no spans are sent: spans need the packages" in caplog.text
