"""The ranking API: POST /v1/rank and what operators need around it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse

from recmoe import __version__
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import RankResponse
from serving.calibration.moments import ServedPredictions
from serving.calibration.monitor import CalibrationMonitor
from serving.calibration.watch import Calibration
from serving.description import Readiness, ServedModel, describe_all, readiness
from serving.docs_page import docs_page
from serving.measured import Measured
from serving.metrics import ServingMetrics
from serving.models.holder import ServedModels
from serving.models.webhook import add_webhook, read_secret
from serving.observability.tracing import tracing_of
from serving.problem import add_handlers
from serving.protocols.arrow import Arrow, names_arrow
from serving.protocols.json_v1 import JsonV1
from serving.protocols.kserve_v2 import kserve_routes
from serving.responses import RANKING, refusals
from serving.service import DEADLINE_HEADER, RankingService
from serving.settings import ServeSettings
from serving.token import BearerToken, read_tokens

MetricsPage = Callable[[ServingMetrics], Awaitable[bytes]]
"""Makes the page of /metrics out of those of the app, which are up to date."""


def create_app(
    source: Ranker | ServedModels,
    settings: ServeSettings | None = None,
    *,
    on_webhook: Callable[[], None] = lambda: None,
    metrics_page: MetricsPage | None = None,
    calibration: Calibration | None = None,
    on_served: Callable[[ServedPredictions], None] | None = None,
) -> FastAPI:
    """The API over a ranker, or over one that is still to be loaded.

    Args:
        source: a ranker is ready at once; others load their own when the app starts.
        settings: limits of a request and of the queue; how the server listens is not the app's.
        on_webhook: called when MLflow says that an alias has moved.
        metrics_page: of several apps that are one to their clients; by default the page is that of this app.
        calibration, on_served: where several processes serve, what their parent knows, and how it is told of
            predictions; by default the app judges its own.

    Raises:
        ServingError: a file of tokens or secrets cannot be read, or spans are wanted without their packages.
    """
    limits = settings or ServeSettings()
    metrics = ServingMetrics()
    models = _loaded(source) if isinstance(source, Ranker) else source
    known = calibration or Calibration()
    service = RankingService(
        models,
        metrics,
        limits,
        calibration=CalibrationMonitor(models, limits, known=known, report=on_served),
        tracing=tracing_of(limits.otlp_endpoint),
    )
    tokens = read_tokens(limits.token_file) if limits.token_file is not None else ()

    @asynccontextmanager
    async def lifespan(served: FastAPI) -> AsyncIterator[None]:
        loading = None if models.ranker else asyncio.create_task(asyncio.to_thread(models.load))
        service.start()
        async with _grpc(service, tokens) as served.state.grpc_port:
            yield
        if loading is not None:
            await loading
        await asyncio.to_thread(service.close)

    app = _bare_app(lifespan)
    app.state.metrics = metrics
    add_handlers(app, metrics)
    if tokens:
        app.add_middleware(BearerToken, tokens=tokens)
    app.add_middleware(Measured, metrics=metrics, models=models, on_end=service.ended)

    _add_ranking(app, service)
    app.include_router(kserve_routes(service))
    if limits.webhook_secret_file is not None:
        add_webhook(app, read_secret(limits.webhook_secret_file), body_s=limits.body_s, on_call=on_webhook)
    _add_pages(app, models, metrics, known, metrics_page or _own_page)
    return app


def _loaded(ranker: Ranker) -> ServedModels:
    """One model that is there."""
    models = ServedModels(lambda: ranker)
    models.load()
    return models


def _bare_app(lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]) -> FastAPI:
    """An app without pages."""
    return FastAPI(
        title="recmoe",
        version=__version__,
        summary="Orders candidates for one user in one context",
        lifespan=lifespan,
        # FastAPI's own pages load their scripts from elsewhere, and stay white where there is no way out.
        docs_url=None,
        redoc_url=None,
        # Its own spans and logs may hold what requests are made of; ours do not.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )


@asynccontextmanager
async def _grpc(service: RankingService, tokens: tuple[bytes, ...]) -> AsyncIterator[int | None]:
    """A server of gRPC beside, where one is wanted, and its port."""
    if service.settings.grpc_port is None:
        yield None
        return
    # Its packages are there only where it is wanted.
    from serving.protocols.kserve_grpc import KServeGrpc

    server = KServeGrpc(service, tokens)
    yield await server.start()
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


async def _own_page(metrics: ServingMetrics) -> bytes:
    return metrics.page()


def _add_pages(
    app: FastAPI, models: ServedModels, metrics: ServingMetrics, calibration: Calibration, metrics_page: MetricsPage
) -> None:
    """What tells about the service and its model. Coroutines: they answer at once, whatever the threads do."""

    @app.get("/v1/models", responses=refusals(401, 503))
    async def served() -> list[ServedModel]:
        """What is served, and what a request may hold."""
        return describe_all(models, calibration.warnings)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz", responses=refusals(503))
    async def readyz() -> Readiness:
        """The model has passed its replay, and the server has not been told to stop."""
        return readiness(models, calibration.warnings)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(models.ranker, absent=models.absent))

    @app.get("/metrics", include_in_schema=False)
    async def prometheus() -> Response:
        metrics.use(models, calibration)
        return Response(await metrics_page(metrics), media_type="text/plain; version=0.0.4; charset=utf-8")
