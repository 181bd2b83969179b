"""The ranking API: POST /v1/rank and what operators need around it."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.requests import ClientDisconnect

from recmoe import __version__
from recmoe.errors import RequestError
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import RankRequest, RankResponse, shown
from serving.body import BodyReader, check_values
from serving.description import Readiness, ServedModel, describe_all, readiness
from serving.docs_page import docs_page
from serving.measured import ARRIVED_S, RANKED_BY, Measured
from serving.metrics import ServingMetrics
from serving.models.holder import ServedModels
from serving.models.shadow import ShadowComparison
from serving.models.webhook import add_webhook, read_secret
from serving.pool import Deadline, RankingPool
from serving.problem import add_handlers
from serving.settings import ServeSettings
from serving.token import BearerToken, read_tokens


def create_app(
    source: Ranker | ServedModels,
    settings: ServeSettings | None = None,
    *,
    on_webhook: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The API over a ranker, or over one that is still to be loaded.

    Args:
        source: a ranker is ready at once; others load their own when the app starts.
        settings: limits of a request and of the queue; how the server listens is not the app's.
        on_webhook: called when MLflow says that an alias has moved.
    """
    limits = settings or ServeSettings()
    metrics = ServingMetrics()
    if isinstance(source, Ranker):
        models = ServedModels(lambda: source)
        models.load()
    else:
        models = source
    pool = RankingPool(
        num_threads=limits.num_threads(),
        shares_cores=limits.shares_cores,
        max_waiting=limits.queue,
        on_length=metrics.waiting,
    )
    comparison = ShadowComparison(share=limits.shadow_share, metrics=metrics.models)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = None if models.ranker else asyncio.create_task(asyncio.to_thread(models.load))
        yield
        if loading is not None:
            await loading
        await asyncio.to_thread(pool.close)
        await asyncio.to_thread(comparison.close)

    # FastAPI's own pages load their scripts from elsewhere, and stay white where there is no way out.
    app = FastAPI(
        title="recmoe",
        version=__version__,
        summary="Orders candidates for one user in one context",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.metrics = metrics
    add_handlers(app, metrics)
    if limits.token_file is not None:
        app.add_middleware(BearerToken, tokens=read_tokens(limits.token_file))
    app.add_middleware(Measured, metrics=metrics, models=models)

    _add_ranking(app, models, metrics, pool, limits, comparison)
    if limits.webhook_secret_file is not None:
        add_webhook(app, read_secret(limits.webhook_secret_file), body_s=limits.body_s, on_call=on_webhook)
    _add_pages(app, models, metrics)
    return app


def _add_ranking(
    app: FastAPI,
    models: ServedModels,
    metrics: ServingMetrics,
    pool: RankingPool,
    limits: ServeSettings,
    comparison: ShadowComparison,
) -> None:
    """What the server is for."""
    reader = BodyReader(max_bytes=limits.max_body_bytes, max_held_bytes=limits.max_held_bytes, timeout_s=limits.body_s)

    @app.post("/v1/rank", response_model=RankResponse, openapi_extra=_request_body())
    async def rank(request: Request) -> Response:
        """Candidates in the order to show them."""
        models.get()
        deadline = _deadline(request, limits.deadline_ms)
        async with reader.body(request) as body:
            metrics.stage("read", time.perf_counter() - deadline.arrived_s)

            def work(waited_s: float) -> str:
                metrics.stage("queue", waited_s)
                check_values(body, limits.max_values)
                parsed = RankRequest.parse(body)
                ranker, arm = models.choose(parsed)
                request.scope[RANKED_BY] = ranker.info
                response = ranker.rank(parsed)
                metrics.observe(response, num_candidates=parsed.num_candidates)
                content = response.model_dump_json()
                models.live.record(body)
                if arm is not None:
                    metrics.models.routed(arm)
                if arm != "challenger":
                    comparison.offer(models.shadow, parsed, response)
                return content

            content = await _unless_gone(request, asyncio.ensure_future(pool.run(work, deadline)))
        deadline.check("ranked")
        metrics.stage("total", time.perf_counter() - deadline.arrived_s)
        return Response(content, media_type="application/json")


def _add_pages(app: FastAPI, models: ServedModels, metrics: ServingMetrics) -> None:
    """What tells about the service and its model. Coroutines: they answer at once, whatever the threads do."""

    @app.get("/v1/models")
    async def served() -> list[ServedModel]:
        """What is served, and what a request may hold."""
        return describe_all(models)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> Readiness:
        """The model has passed its replay, and the server has not been told to stop."""
        return readiness(models)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(models.ranker, absent=models.absent))

    @app.get("/metrics", include_in_schema=False)
    async def prometheus() -> Response:
        metrics.models.update(models)
        return Response(metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _deadline(request: Request, default_ms: float) -> Deadline:
    """When a request must be answered; RequestError where its header is no time."""
    arrived_s: float = request.scope[ARRIVED_S]
    given = request.headers.get("x-deadline-ms")
    if given is None:
        return Deadline(arrived_s, default_ms)
    try:
        allowed_ms = float(given)
    except ValueError:
        allowed_ms = math.nan
    if not 0 < allowed_ms < math.inf:
        raise RequestError("X-Deadline-Ms", f"expected milliseconds above 0, found {shown(given)}")
    return Deadline(arrived_s, allowed_ms)


async def _unless_gone(request: Request, ranking: "asyncio.Future[str]") -> str:
    """The outcome of a ranking; ClientDisconnect, and no ranking if it was not begun, once the client has hung up."""
    # The body has been read: what comes next is the end of the connection.
    gone = asyncio.ensure_future(request.receive())
    gone.add_done_callback(lambda _: ranking.cancel())
    try:
        return await ranking
    except asyncio.CancelledError:
        if gone.done() and not gone.cancelled():
            raise ClientDisconnect from None
        raise
    finally:
        gone.cancel()


def _request_body() -> dict[str, Any]:
    """The request's schema for the OpenAPI page; the body itself is read by hand, to limit its size."""
    schema = RankRequest.model_json_schema()
    deadline = {
        "name": "X-Deadline-Ms",
        "in": "header",
        "required": False,
        "description": "Milliseconds until the answer must be there; it is refused early rather than late.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    }
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "parameters": [deadline],
    }
