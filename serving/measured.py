"""Measured: notes when a request arrives, names it, and counts with what status it is answered."""

from collections.abc import Callable
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.metrics import ServingMetrics
from serving.models.holder import ServedModels
from serving.observability.call import CALL, REQUEST_ID, Call


class Measured:
    """A plain ASGI middleware: Starlette's own kind for functions starts a task group for every request.

    Args:
        on_end: called with every request for a ranking once it is answered.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: ServingMetrics, models: ServedModels, on_end: Callable[[Call], None]
    ) -> None:
        self._app, self._metrics, self._models, self._on_end = app, metrics, models, on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        call = Call.of(Headers(scope=scope), method=scope["method"], path=path, is_ranking=_asks_to_rank(path))
        # Not reset at the end: the task is the request's own, and what is logged further out belongs to it too.
        CALL.set(call)

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.end(message["status"])
                if call.is_ranking:
                    self._metrics.count(self._models, call)
                name = (REQUEST_ID.encode(), call.request_id.encode())
                message = {**message, "headers": [*message.get("headers", ()), name]}
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except Exception:
            # The answer is made further out. A fault of any page is counted, as it may be the next request's too.
            call.end(HTTPStatus.INTERNAL_SERVER_ERROR)
            self._metrics.count(self._models, call)
            raise
        finally:
            if call.is_ranking:
                self._on_end(call)


def _asks_to_rank(path: str) -> bool:
    return path == "/v1/rank" or (path.startswith("/v2/models/") and path.endswith("/infer"))
