"""Calls of a webhook, signed as MLflow signs them."""

import base64
import hashlib
import hmac
import time

SECRET = "a secret of the webhook"
BODY = b'{"entity": "model_version_alias", "action": "created", "data": {"name": "shop"}}'


def signed(body: bytes = BODY, *, secret: str = SECRET, at_s: float | None = None) -> dict[str, str]:
    """MLflow's headers, as its documentation says how they are made."""
    at = str(int(time.time() if at_s is None else at_s))
    made = hmac.new(secret.encode(), b"id-1." + at.encode() + b"." + body, hashlib.sha256).digest()
    return {
        "X-MLflow-Delivery-Id": "id-1",
        "X-MLflow-Timestamp": at,
        "X-MLflow-Signature": f"v1,{base64.b64encode(made).decode()}",
    }
