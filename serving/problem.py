"""Problem: an error as application/problem+json (RFC 9457)."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from recmoe.errors import RequestError, StoreError
from serving.job import LateError
from serving.metrics import ServingMetrics
from serving.models.holder import NotReadyError
from serving.observability.call import CALL, REQUEST_ID
from serving.pool import OverloadError

_logger = logging.getLogger(__name__)

PROBLEM = "application/problem+json"

CLIENT_GONE = 499
"""A client that hung up before it had sent its request; the code that nginx counts it under."""


class UnknownModelError(Exception):
    """A model or a version that is not served."""


class BodyTooLargeError(Exception):
    """A request of more bytes than the server reads."""


class EncodedBodyError(Exception):
    """A request whose body is compressed: how large it would become is not known before."""


class SlowBodyError(Exception):
    """A request whose body did not arrive in time."""


def failure(path: str, status: HTTPStatus, detail: str, *, field: str | None = None) -> JSONResponse:
    """A response that says what is wrong, in the form of the protocol that a path belongs to."""
    if path != "/v2" and not path.startswith("/v2/"):
        return problem(status, detail, field=field)
    # KServe's protocol knows no other code for a request that does not fit.
    code = HTTPStatus.BAD_REQUEST if status == HTTPStatus.UNPROCESSABLE_ENTITY else status
    return JSONResponse({"error": detail}, status_code=code)


def problem(status: HTTPStatus, detail: str, *, field: str | None = None) -> JSONResponse:
    """A response that says what is wrong, and with which field."""
    content = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail}
    if field is not None:
        content["field"] = field
    return JSONResponse(content, status_code=status, media_type=PROBLEM)


def add_handlers(app: FastAPI, metrics: ServingMetrics) -> None:
    """Let an app answer every error as a problem."""
    _add_refusals(app, metrics)

    @app.exception_handler(RequestError)
    async def wrong_request(request: Request, error: RequestError) -> Response:
        return failure(request.url.path, HTTPStatus.UNPROCESSABLE_ENTITY, str(error), field=error.field)

    @app.exception_handler(BodyTooLargeError)
    async def too_large(request: Request, error: BodyTooLargeError) -> Response:
        return failure(request.url.path, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error))

    @app.exception_handler(EncodedBodyError)
    async def encoded(request: Request, error: EncodedBodyError) -> Response:
        return failure(request.url.path, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, str(error))

    @app.exception_handler(UnknownModelError)
    async def unknown(request: Request, error: UnknownModelError) -> Response:
        return failure(request.url.path, HTTPStatus.NOT_FOUND, str(error))

    @app.exception_handler(StoreError)
    @app.exception_handler(NotReadyError)
    async def not_ready(request: Request, error: NotReadyError | StoreError) -> Response:
        response = failure(request.url.path, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        response.headers["Retry-After"] = "1"
        return response

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        detail = f"{request.method} {request.url.path}: see /docs for what there is"
        response = failure(request.url.path, HTTPStatus(error.status_code), detail)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        # No client reads it; the code is what is counted, and no fault of the server.
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        _logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        response = failure(request.url.path, HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; its log says why")
        # It is made beyond the middleware that adds the id to all others.
        response.headers[REQUEST_ID] = CALL.get().request_id
        return response


def _add_refusals(app: FastAPI, metrics: ServingMetrics) -> None:
    """Answers to requests that the server could not take on; each is counted by its reason."""

    @app.exception_handler(OverloadError)
    async def overload(request: Request, error: OverloadError) -> Response:
        metrics.refused(error.reason)
        response = failure(request.url.path, HTTPStatus.TOO_MANY_REQUESTS, str(error))
        response.headers["Retry-After"] = str(error.retry_after_s)
        return response

    @app.exception_handler(LateError)
    async def late(request: Request, error: LateError) -> Response:
        # Not 503: a client would send it again, and who asked does not wait for the answer any more.
        metrics.refused("late")
        return failure(request.url.path, HTTPStatus.GATEWAY_TIMEOUT, str(error))

    @app.exception_handler(SlowBodyError)
    async def slow_body(request: Request, error: SlowBodyError) -> Response:
        metrics.refused("slow_body")
        response = failure(request.url.path, HTTPStatus.REQUEST_TIMEOUT, str(error))
        response.headers["Connection"] = "close"
        return response
