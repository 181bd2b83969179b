"""BearerToken: lets in those who know one of the tokens."""

import hmac
from http import HTTPStatus
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from recmoe.errors import ServingError
from serving.connection import HEALTH
from serving.models.webhook import PATH as WEBHOOK
from serving.problem import failure

_OPEN_TO_ALL = (*HEALTH, WEBHOOK)
"""Probes have no token, and learn nothing but that the server is there and ready; MLflow signs its calls instead."""


def read_tokens(path: Path) -> tuple[bytes, ...]:
    """Tokens, one a line; several let clients change theirs one after the other.

    Raises:
        ServingError: the file cannot be read or holds none.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ServingError(f"token_file {path} cannot be read: {error.strerror}") from error
    tokens = tuple(line.strip() for line in lines if line.strip())
    if not tokens:
        raise ServingError(f"token_file {path} holds no token; write one a line")
    return tokens


class BearerToken:
    """A plain ASGI middleware that answers 401 to requests without a token."""

    def __init__(self, app: ASGIApp, *, tokens: tuple[bytes, ...]) -> None:
        self._app, self._tokens = app, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _OPEN_TO_ALL or self._is_known(scope):
            await self._app(scope, receive, send)
            return
        response = failure(scope["path"], HTTPStatus.UNAUTHORIZED, "send the header Authorization: Bearer TOKEN")
        response.headers["WWW-Authenticate"] = "Bearer"
        await response(scope, receive, send)

    def _is_known(self, scope: Scope) -> bool:
        return is_known(Headers(scope=scope).get("authorization", ""), self._tokens)


def is_known(authorization: str, tokens: tuple[bytes, ...]) -> bool:
    """Whether a header holds one of the tokens."""
    kind, _, token = authorization.partition(" ")
    given = token.strip().encode("latin-1", "replace")
    # Every token is compared, and in the same time however much of it is right.
    return sum(hmac.compare_digest(given, known) for known in tokens) > 0 and kind.lower() == "bearer"
