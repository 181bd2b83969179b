"""The ranking API: POST /v1/rank and what operators need around it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from recmoe import __version__
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import RankResponse
from serving.description import Readiness, ServedModel, describe_all, readiness
from serving.docs_page import docs_page
from serving.measured import Measured
from serving.metrics import ServingMetrics
from serving.models.holder import ServedModels
from serving.models.webhook import add_webhook, read_secret
from serving.problem import add_handlers
from serving.protocols.arrow import Arrow, names_arrow
from serving.protocols.json_v1 import JsonV1
from serving.protocols.kserve_v2 import kserve_routes
from serving.responses import RANKING, refusals
from serving.service import DEADLINE_HEADER, RankingService
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
    service = RankingService(models, metrics, limits)

    tokens = read_tokens(limits.token_file) if limits.token_file is not None else ()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = None if models.ranker else asyncio.create_task(asyncio.to_thread(models.load))
        async with _grpc(service, tokens):
            yield
        if loading is not None:
            await loading
        await asyncio.to_thread(service.close)

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
    if tokens:
        app.add_middleware(BearerToken, tokens=tokens)
    app.add_middleware(Measured, metrics=metrics, models=models)

    _add_ranking(app, service)
    app.include_router(kserve_routes(service))
    if limits.webhook_secret_file is not None:
        add_webhook(app, read_secret(limits.webhook_secret_file), body_s=limits.body_s, on_call=on_webhook)
    _add_pages(app, models, metrics)
    return app


@asynccontextmanager
async def _grpc(service: RankingService, tokens: tuple[bytes, ...]) -> AsyncIterator[None]:
    """A server of gRPC beside, where one is wanted."""
    if service.settings.grpc_port is None:
        yield
        return
    # Its packages are there only where it is wanted.
    from serving.protocols.kserve_grpc import KServeGrpc

    server = KServeGrpc(service, tokens)
    await server.start()
    yield
    await server.stop()


def _add_ranking(app: FastAPI, service: RankingService) -> None:
    """What the server is for."""
    json_v1, arrow = JsonV1(max_values=service.settings.max_values), Arrow(max_values=service.settings.max_values)
    description = {
        "requestBody": {"required": True, "content": {**json_v1.described(), **arrow.described()}},
        "parameters": [DEADLINE_HEADER],
    }

    @app.post("/v1/rank", response_model=RankResponse, responses=refusals(*RANKING), openapi_extra=description)
    async def rank(request: Request) -> Response:
        """Candidates in the order to show them; written as Content-Type says, answered as Accept does."""
        asked = arrow if names_arrow(request.headers.get("content-type", "")) else json_v1
        answered = arrow if names_arrow(request.headers.get("accept", "")) else json_v1
        return await service.answer(request, asked.name, asked.read, answered.encode)


def _add_pages(app: FastAPI, models: ServedModels, metrics: ServingMetrics) -> None:
    """What tells about the service and its model. Coroutines: they answer at once, whatever the threads do."""

    @app.get("/v1/models", responses=refusals(401, 503))
    async def served() -> list[ServedModel]:
        """What is served, and what a request may hold."""
        return describe_all(models)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz", responses=refusals(503))
    async def readyz() -> Readiness:
        """The model has passed its replay, and the server has not been told to stop."""
        return readiness(models)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(models.ranker, absent=models.absent))

    @app.get("/metrics", include_in_schema=False)
    async def prometheus() -> Response:
        metrics.use(models)
        return Response(metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")
