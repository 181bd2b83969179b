"""Measured: notes when a request arrives and counts with what status it is answered."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recmoe.ranking.request import ModelInfo
from serving.metrics import ServingMetrics
from serving.models.holder import ServedModels

ARRIVED_S = "recmoe.arrived_s"
"""Key of a request's scope: when its head was there, by ``time.perf_counter``."""

RANKED_BY = "recmoe.ranked_by"
"""Key of a request's scope: the ModelInfo of the model that it was given to; the champion counts where none was."""


class Measured:
    """A plain ASGI middleware: Starlette's own kind for functions starts a task group for every request."""

    def __init__(self, app: ASGIApp, *, metrics: ServingMetrics, models: ServedModels) -> None:
        self._app, self._metrics, self._models = app, metrics, models

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[ARRIVED_S] = time.perf_counter()

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start" and _asks_to_rank(scope["path"]):
                self._metrics.count(self._model(scope), message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        except Exception:
            # The answer is made further out. A fault of any page is counted, as it may be the next request's too.
            self._metrics.count(self._model(scope), 500)
            raise

    def _model(self, scope: Scope) -> ModelInfo | None:
        champion = self._models.ranker
        found: ModelInfo | None = scope.get(RANKED_BY, champion.info if champion is not None else None)
        return found


def _asks_to_rank(path: str) -> bool:
    return path == "/v1/rank" or (path.startswith("/v2/models/") and path.endswith("/infer"))
