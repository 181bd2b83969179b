"""The ranking API: POST /v1/rank and what operators need around it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

from recmoe import __version__
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import RankRequest, RankResponse
from serving.description import ServedModel, describe
from serving.docs_page import docs_page
from serving.metrics import ServingMetrics
from serving.problem import BodyTooLargeError, NotReadyError, add_handlers

MAX_BODY_BYTES = 32 * 2**20
"""10,000 candidates with a hundred columns each are about 20 MB of JSON."""

_logger = logging.getLogger(__name__)


class ModelHolder:
    """The ranker of an app: absent until it has been loaded and has passed its replay.

    Args:
        load: makes it.
        on_ready: called once it is there.
        on_failure: called if ``load`` raised; ``error`` says what. Without it the log does.
    """

    def __init__(
        self,
        load: Callable[[], Ranker],
        *,
        on_ready: Callable[[Ranker], None] | None = None,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self._load, self._on_ready, self._on_failure = load, on_ready, on_failure
        self.ranker: Ranker | None = None
        self.error: Exception | None = None

    def get(self) -> Ranker:
        """The ranker; NotReadyError while there is none."""
        if self.ranker is None:
            raise NotReadyError(self.absent)
        return self.ranker

    @property
    def absent(self) -> str:
        """Why there is no ranker."""
        return f"no model: {self.error}" if self.error else "the model is being loaded and replayed"

    def load(self) -> None:
        """Load it; runs on a thread of its own while the app answers already."""
        try:
            ranker = self._load()
        except Exception as error:
            self.error = error
            if self._on_failure is not None:
                self._on_failure()
            else:
                _logger.error("the model cannot be served: %s", error)
            return
        if self._on_ready is not None:
            self._on_ready(ranker)
        self.ranker = ranker


def create_app(source: Ranker | ModelHolder, *, max_body_bytes: int = MAX_BODY_BYTES) -> FastAPI:
    """The API over a ranker, or over one that is still to be loaded.

    Args:
        source: a ranker is ready at once; a holder loads its own when the app starts.
        max_body_bytes: largest request that is read.
    """
    metrics = ServingMetrics()
    if isinstance(source, Ranker):
        holder = ModelHolder(lambda: source)
        holder.load()
    else:
        holder = source

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = None if holder.ranker else asyncio.create_task(asyncio.to_thread(holder.load))
        yield
        if loading is not None:
            await loading

    # FastAPI's own pages load their scripts from elsewhere, and stay white where there is no way out.
    app = FastAPI(
        title="recmoe",
        version=__version__,
        summary="Orders candidates for one user in one context",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    add_handlers(app)

    @app.middleware("http")
    async def count_requests(request: Request, call_next: Callable[[Request], Any]) -> Response:
        try:
            response: Response = await call_next(request)
        except Exception:
            # The answer is made further out. A fault of any page is counted, as it may be the next request's too.
            metrics.count(holder.ranker, 500)
            raise
        if request.url.path == "/v1/rank":
            metrics.count(holder.ranker, response.status_code)
        return response

    @app.post("/v1/rank", response_model=RankResponse, openapi_extra=_request_body())
    async def rank(request: Request) -> Response:
        """Candidates in the order to show them."""
        ranker = holder.get()
        body = await _read(request, max_body_bytes)
        content = await run_in_threadpool(_rank, ranker, body, metrics)
        return Response(content, media_type="application/json")

    _add_pages(app, holder, metrics)
    return app


def _add_pages(app: FastAPI, holder: ModelHolder, metrics: ServingMetrics) -> None:
    """What tells about the service and its model."""

    @app.get("/v1/models")
    def models() -> list[ServedModel]:
        """What is served, and what a request may hold."""
        return [describe(holder.get())]

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        """The model has passed its replay."""
        return {"status": "ready", "digest": holder.get().info.digest}

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(holder.ranker, absent=holder.absent))

    @app.get("/metrics", include_in_schema=False)
    def prometheus() -> Response:
        if holder.ranker is not None:
            metrics.use_model(holder.ranker)
        return Response(metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _read(request: Request, max_body_bytes: int) -> bytes:
    """The body, as far as it is allowed to go on."""
    too_large = f"the request has more than {max_body_bytes} bytes; send fewer candidates at once"
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_body_bytes:
        raise BodyTooLargeError(too_large)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > max_body_bytes:
            raise BodyTooLargeError(too_large)
    return bytes(body)


def _rank(ranker: Ranker, body: bytes, metrics: ServingMetrics) -> str:
    """A response as JSON, from a request as JSON."""
    request = RankRequest.parse(body)
    response = ranker.rank(request)
    metrics.observe(response, num_candidates=request.num_candidates)
    return response.model_dump_json()


def _request_body() -> dict[str, Any]:
    """The request's schema for the OpenAPI page; the body itself is read by hand, to limit its size."""
    schema = RankRequest.model_json_schema()
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
