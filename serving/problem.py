"""Problem: an error as application/problem+json (RFC 9457)."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from recmoe.errors import RequestError
from serving.metrics import ServingMetrics
from serving.models.holder import NotReadyError
from serving.pool import LateError, OverloadError

_logger = logging.getLogger(__name__)

CLIENT_GONE = 499
"""A client that hung up before it had sent its request; the code that nginx counts it under."""


class BodyTooLargeError(Exception):
    """A request of more bytes than the server reads."""


class SlowBodyError(Exception):
    """A request whose body did not arrive in time."""


def problem(status: HTTPStatus, detail: str, *, field: str | None = None) -> JSONResponse:
    """A response that says what is wrong, and with which field."""
    content = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail}
    if field is not None:
        content["field"] = field
    return JSONResponse(content, status_code=status, media_type="application/problem+json")


def add_handlers(app: FastAPI, metrics: ServingMetrics) -> None:
    """Let an app answer every error as a problem."""
    _add_refusals(app, metrics)

    @app.exception_handler(RequestError)
    async def wrong_request(_: Request, error: RequestError) -> Response:
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), field=error.field)

    @app.exception_handler(BodyTooLargeError)
    async def too_large(_: Request, error: BodyTooLargeError) -> Response:
        return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error))

    @app.exception_handler(NotReadyError)
    async def not_ready(_: Request, error: NotReadyError) -> Response:
        response = problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        response.headers["Retry-After"] = "1"
        return response

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        detail = f"{request.method} {request.url.path}: see /docs for what there is"
        response = problem(HTTPStatus(error.status_code), detail)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        # No client reads it; the code is what is counted, and no fault of the server.
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        _logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; its log says why")


def _add_refusals(app: FastAPI, metrics: ServingMetrics) -> None:
    """Answers to requests that the server could not take on; each is counted by its reason."""

    @app.exception_handler(OverloadError)
    async def overload(_: Request, error: OverloadError) -> Response:
        metrics.refused(error.reason)
        response = problem(HTTPStatus.TOO_MANY_REQUESTS, str(error))
        response.headers["Retry-After"] = str(error.retry_after_s)
        return response

    @app.exception_handler(LateError)
    async def late(_: Request, error: LateError) -> Response:
        # Not 503: a client would send it again, and who asked does not wait for the answer any more.
        metrics.refused("late")
        return problem(HTTPStatus.GATEWAY_TIMEOUT, str(error))

    @app.exception_handler(SlowBodyError)
    async def slow_body(_: Request, error: SlowBodyError) -> Response:
        metrics.refused("slow_body")
        response = problem(HTTPStatus.REQUEST_TIMEOUT, str(error))
        response.headers["Connection"] = "close"
        return response
