"""KServe's inference protocol, version 2, over gRPC: a port of its own, the same queue and the same limits."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import grpc

from recmoe import __version__
from recmoe.errors import RequestError, ServingError, StoreError
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import ColumnRequest
from serving.job import Deadline, LateError
from serving.models.holder import NotReadyError
from serving.observability.call import CALL, REQUEST_ID, Call
from serving.pool import OverloadError
from serving.problem import CLIENT_GONE, BodyTooLargeError, UnknownModelError
from serving.protocols.kserve import inputs_described, outputs_described
from serving.protocols.kserve_infer import GrpcInferCall, read_message
from serving.protocols.kserve_messages import MESSAGES
from serving.protocols.kserve_v2 import served
from serving.protocols.wire import has_text
from serving.service import RankingService
from serving.token import is_known

_logger = logging.getLogger(__name__)

NAME = "kserve_grpc"
SERVICE = "inference.GRPCInferenceService"
_PROBES = ("ServerLive", "ServerReady")
_MODEL_VERSION = 2
"""Number of that field in a ModelInferRequest."""
Method = Callable[[bytes, Any], Awaitable[bytes]]

_STATUS = {
    RequestError: (grpc.StatusCode.INVALID_ARGUMENT, HTTPStatus.BAD_REQUEST),
    BodyTooLargeError: (grpc.StatusCode.RESOURCE_EXHAUSTED, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    OverloadError: (grpc.StatusCode.RESOURCE_EXHAUSTED, HTTPStatus.TOO_MANY_REQUESTS),
    LateError: (grpc.StatusCode.DEADLINE_EXCEEDED, HTTPStatus.GATEWAY_TIMEOUT),
    NotReadyError: (grpc.StatusCode.UNAVAILABLE, HTTPStatus.SERVICE_UNAVAILABLE),
    StoreError: (grpc.StatusCode.UNAVAILABLE, HTTPStatus.SERVICE_UNAVAILABLE),
    UnknownModelError: (grpc.StatusCode.NOT_FOUND, HTTPStatus.NOT_FOUND),
}
"""Codes of an error, in gRPC and as it is counted beside those of HTTP."""
_ERRORS: tuple[type[Exception], ...] = tuple(_STATUS)


class KServeGrpc:
    """A server of gRPC on the loop that runs when it is made.

    Args:
        service: ranks; its settings say where to listen.
        tokens: one of them is asked for, but by probes; none is where there are none.
    """

    def __init__(self, service: RankingService, tokens: tuple[bytes, ...]) -> None:
        self._service, self._tokens = service, tokens
        settings = service.settings
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_metadata_size", 65536),
                # Workers share it, and with what has found a free one.
                ("grpc.so_reuseport", 1),
                ("grpc.max_connection_idle_ms", settings.keep_alive_s * 1000),
                # Identity alone: how large a compressed message becomes is checked by no one.
                ("grpc.compression_enabled_algorithms_bitset", 1),
            ],
            maximum_concurrent_rpcs=settings.queue + settings.num_threads() + len(_PROBES),
        )
        methods: dict[str, Method] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(self._guarded(name, method)) for name, method in methods.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def start(self) -> int:
        """Listen, and say on which port; ServingError where that is not possible."""
        settings = self._service.settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"{host}:{settings.grpc_port}"
        try:
            if settings.certificate is None or settings.key is None:
                port: int = self._server.add_insecure_port(address)
            else:
                pair = settings.key.read_bytes(), settings.certificate.read_bytes()
                port = self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        except RuntimeError as error:
            raise ServingError(f"cannot listen on {address} for gRPC; choose another --grpc-port") from error
        await self._server.start()
        return port

    async def stop(self) -> None:
        """Take no more requests, and answer those under way within ``drain_s``."""
        await self._server.stop(self._service.settings.drain_s)

    def _guarded(self, name: str, method: Method) -> Method:
        """A method whose errors are statuses."""

        async def guarded(body: bytes, context: Any) -> bytes:
            if name not in _PROBES and not self._is_let_in(context):
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "send the metadata authorization: Bearer TOKEN")
            call = _call(name, context)
            CALL.set(call)
            context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
            code, reason, status = grpc.StatusCode.OK, "", int(HTTPStatus.OK)
            try:
                return await method(body, context)
            except asyncio.CancelledError:
                status = CLIENT_GONE
                raise
            except _ERRORS as error:
                code, status = _STATUS[type(error)]
                reason = str(error)
                if isinstance(error, OverloadError | LateError):
                    self._service.metrics.refused(error.reason if isinstance(error, OverloadError) else "late")
            except Exception as error:
                code, status = grpc.StatusCode.INTERNAL, HTTPStatus.INTERNAL_SERVER_ERROR
                reason = "the server failed; its log says why"
                _logger.error("%s failed", name, exc_info=error)
            finally:
                call.end(int(status))
                if call.is_ranking:
                    self._service.metrics.count(self._service.models, call)
                    self._service.ended(call)
            await context.abort(code, reason)
            raise AssertionError("abort raises")

        return guarded

    def _is_let_in(self, context: Any) -> bool:
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        return not self._tokens or is_known(given if isinstance(given, str) else "", self._tokens)

    async def _infer(self, body: bytes, context: Any) -> bytes:
        service, remaining_s = self._service, context.time_remaining()
        allowed_ms = service.settings.deadline_ms if remaining_s is None else remaining_s * 1000
        deadline = Deadline(CALL.get().arrived_s, allowed_ms)
        infer = GrpcInferCall(max_values=service.settings.max_values)

        named: Ranker | None = None

        def read(_: Ranker, body: bytes) -> ColumnRequest:
            nonlocal named
            message = read_message(body, "ModelInferRequest")
            ranker = served(service.models, message.model_name, message.model_version)
            # A version that is named answers; otherwise the user decides.
            named = ranker if message.model_version else None
            return infer.read(ranker, message)

        with service.reader.held(len(body)):
            reply = await service.rank(
                body, deadline, NAME, read, infer.encode, named=lambda: named, is_named=has_text(body, _MODEL_VERSION)
            )
        service.finished(deadline)
        assert isinstance(reply.content, bytes)
        return reply.content

    async def _live(self, _body: bytes, _context: Any) -> bytes:
        return _written("ServerLiveResponse", live=True)

    async def _ready(self, _body: bytes, _context: Any) -> bytes:
        return _written("ServerReadyResponse", ready=self._is_ready())

    async def _model_ready(self, body: bytes, _context: Any) -> bytes:
        self._asked(body, "ModelReadyRequest")
        return _written("ModelReadyResponse", ready=self._is_ready())

    async def _metadata(self, _body: bytes, _context: Any) -> bytes:
        return _written("ServerMetadataResponse", name="recmoe", version=__version__)

    async def _model_metadata(self, body: bytes, _context: Any) -> bytes:
        ranker = self._asked(body, "ModelMetadataRequest")
        tensor = MESSAGES["TensorMetadata"]
        described = [
            [tensor(name=name, datatype=datatype, shape=shape) for name, datatype, shape in tensors]
            for tensors in (inputs_described(ranker), outputs_described(ranker))
        ]
        return _written(
            "ModelMetadataResponse",
            name=ranker.info.name,
            versions=[ranker.info.version] if ranker.info.version is not None else [],
            platform="recmoe",
            inputs=described[0],
            outputs=described[1],
        )

    def _is_ready(self) -> bool:
        try:
            self._service.models.get_for_new()
        except NotReadyError:
            return False
        return True

    def _asked(self, body: bytes, kind: str) -> Ranker:
        """The ranker of the model that a message names."""
        message = read_message(body, kind)
        return served(self._service.models, message.name, message.version)


def _call(name: str, context: Any) -> Call:
    """The call of a method that has just begun."""
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    return Call.of(metadata, method="gRPC", path=f"/{SERVICE}/{name}", is_ranking=name == "ModelInfer")


def _written(kind: str, **fields: Any) -> bytes:
    content: bytes = MESSAGES[kind](**fields).SerializeToString()
    return content
