"""request_body: what is to be ranked, as the JSON that a server reads."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from recmoe.errors import RequestError


def request_body(**fields: Any) -> bytes:
    """The body of POST /v1/rank; fields that are None are left out.

    Raises:
        RequestError: a value or a name has no JSON.
    """
    document = {name: value for name, value in fields.items() if value is not None}
    try:
        return json.dumps(document, default=_as_json, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError("body", f"cannot be written as JSON: {error}") from error


def _as_json(value: Any) -> Any:
    """What JSON has for a value of another type; TypeError where it has nothing."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Decimal):
        return str(value)
    for method in ("tolist", "item", "isoformat"):
        if hasattr(value, method):
            return getattr(value, method)()
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{value!r:.40} is of type {type(value).__name__}; give a number or text")
