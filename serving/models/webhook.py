"""MLflow's webhook: a call that an alias has moved makes the server look at once.

It says no more than that: sent again by somebody else, it only makes the server look. A call is signed by
HMAC-SHA256 over ``id.timestamp.body`` with the secret of the webhook, and its headers are those of MLflow 3::

    X-MLflow-Delivery-Id: 0b4c…
    X-MLflow-Timestamp: 1767225600
    X-MLflow-Signature: v1,bGV0…=
"""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from recmoe.errors import ServingError
from serving.body import BodyReader
from serving.problem import problem

PATH = "/v1/models/webhook"

_TOLERANCE_S = 300
"""Seconds that a call's time and this machine's clock may be apart."""
_MAX_BYTES = 65536
_MAX_HELD_BYTES = 16 * _MAX_BYTES


def read_secret(path: Path) -> bytes:
    """The secret of the webhook, from a file that holds nothing else.

    Raises:
        ServingError: the file cannot be read or is empty.
    """
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise ServingError(f"webhook_secret_file {path} cannot be read: {error.strerror}") from error
    if not secret:
        raise ServingError(f"webhook_secret_file {path} is empty; write the secret of MLflow's webhook into it")
    return secret


def add_webhook(app: FastAPI, secret: bytes, *, body_s: float, on_call: Callable[[], None]) -> None:
    """Let an app take MLflow's calls; ``on_call`` is called for each that is signed."""
    reader = BodyReader(max_bytes=_MAX_BYTES, max_held_bytes=_MAX_HELD_BYTES, timeout_s=body_s)

    @app.post(PATH)
    async def webhook(request: Request) -> Response:
        """MLflow says that an alias has moved."""
        async with reader.body(request) as body:
            fault = fault_of(request.headers, body, secret=secret, now_s=time.time())
        if fault is not None:
            return problem(HTTPStatus.UNAUTHORIZED, fault)
        on_call()
        return JSONResponse({"status": "looking"}, status_code=HTTPStatus.ACCEPTED)


def fault_of(headers: Mapping[str, str], body: bytes, *, secret: bytes, now_s: float) -> str | None:
    """Why a call is not to be trusted; None where it is MLflow's."""
    names = ("X-MLflow-Delivery-Id", "X-MLflow-Timestamp", "X-MLflow-Signature")
    missing = [name for name in names if not headers.get(name)]
    if missing:
        return f"the header {missing[0]} is missing; give the webhook in MLflow the secret that this server has"
    delivery, at, signature = (headers[name] for name in names)
    if re.fullmatch(r"\d{1,12}", at) is None or abs(int(at) - now_s) > _TOLERANCE_S:
        return f"X-MLflow-Timestamp is not within {_TOLERANCE_S} s of this server's clock"
    signed = f"{delivery}.{at}.".encode("latin-1") + body
    expected = b"v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest())
    if not hmac.compare_digest(signature.encode("latin-1"), expected):
        return "X-MLflow-Signature does not fit; give the webhook in MLflow the secret that this server has"
    return None
