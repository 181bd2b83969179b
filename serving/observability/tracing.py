"""Tracing: a span of OpenTelemetry for each request for a ranking. The only file that imports its packages."""

import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from recmoe import __version__
from recmoe.errors import ServingError
from serving.observability.call import Call

if TYPE_CHECKING:
    pass

_logger = logging.getLogger(__name__)

_PATH = "/v1/traces"
_PROTOCOL = "http/protobuf"
_NO_SPANS = "the environment names a collector, but no spans are sent: %s"
_CLOSE_S = 3.0
"""Seconds at the end for spans that have not been sent; a collector that does not answer keeps no server alive."""


def tracing_of(endpoint: str | None, environment: Mapping[str, str] = os.environ) -> "Tracing | None":
    """What sends spans to a collector; None, and no package is loaded, where no collector is named.

    Args:
        endpoint: of the collector, without the path; by default that of OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, which is
            the whole address, or OTEL_EXPORTER_OTLP_ENDPOINT.

    Raises:
        ServingError: an endpoint is given and the packages are not there. Where the environment names one, which may
            be meant for others, that is only warned of.
    """
    url = _traces_url(endpoint, environment)
    if url is None:
        return None
    protocols = [environment.get(f"OTEL_EXPORTER_OTLP_{name}PROTOCOL") for name in ("TRACES_", "")]
    protocol = next(filter(None, protocols), _PROTOCOL)
    if endpoint is None and protocol != _PROTOCOL:
        _logger.warning(_NO_SPANS, f"it takes {protocol}, and spans are sent as {_PROTOCOL}")
        return None
    try:
        return Tracing(url)
    except ImportError as error:
        reason = f"spans need the packages of OpenTelemetry ({error}): pip install 'recmoe[tracing]'"
        if endpoint is not None:
            raise ServingError(f"otlp_endpoint: {reason}") from error
        _logger.warning(_NO_SPANS, reason)
        return None


def _traces_url(endpoint: str | None, environment: Mapping[str, str]) -> str | None:
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if endpoint is None:
        if environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() != "otlp":
            return None
        if whole := environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
            return whole
        endpoint = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return f"{endpoint.rstrip('/').removesuffix(_PATH)}{_PATH}" if endpoint else None


class Tracing:
    """Makes the spans of a request when it has been answered, and sends them from a thread of its own.

    How many requests are traced is the caller's decision, and for others that of OTEL_TRACES_SAMPLER; headers,
    resources and batches are set by OpenTelemetry's variables too.

    Args:
        url: of the collector, with its path.
    """

    def __init__(self, url: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._server, self._error, self._within = SpanKind.SERVER, StatusCode.ERROR, set_span_in_context
        self._context = TraceContextTextMapPropagator()
        # Its own exit handler would wait for the collector as long as that likes.
        self._provider: TracerProvider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url)))
        self._tracer = self._provider.get_tracer("recmoe.serving", __version__)

    def record(self, call: Call) -> None:
        """A request has been answered."""
        if call.ended_s is None:
            return
        # Stages are timed by a clock that has no date.
        epoch_ns = time.time_ns() - int(time.perf_counter() * 1e9)

        def at_ns(time_s: float) -> int:
            return epoch_ns + int(time_s * 1e9)

        span = self._tracer.start_span(
            "rank",
            context=self._context.extract(call.trace_headers),
            kind=self._server,
            attributes=_attributes(call),
            start_time=at_ns(call.arrived_s),
        )
        if span.is_recording():
            if call.status is not None and call.status >= 500:
                span.set_status(self._error)
            parent = self._within(span)
            for name, start_s, end_s in call.stages:
                self._tracer.start_span(name, context=parent, start_time=at_ns(start_s)).end(at_ns(end_s))
        span.end(at_ns(call.ended_s))

    def close(self) -> None:
        """Send what has not been sent, within a few seconds."""
        ending = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        ending.start()
        ending.join(_CLOSE_S)


def _attributes(call: Call) -> dict[str, str | int]:
    given = {
        "http.request.method": call.method,
        "url.path": call.path,
        "http.response.status_code": call.status,
        "recmoe.request_id": call.request_id,
        "recmoe.protocol": call.protocol,
        "recmoe.candidates": call.num_candidates,
        "recmoe.model.name": call.model.name if call.model is not None else None,
        "recmoe.model.version": call.model.version if call.model is not None else None,
        "recmoe.model.digest": call.model.digest if call.model is not None else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _resource() -> Any:
    """The server, as OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES name it."""
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    resource = Resource.create({"service.version": __version__, "process.pid": os.getpid()})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "recmoe"}))
    return resource
