"""refusals(): the answers of a page that are no success, for the OpenAPI document."""

from http import HTTPStatus
from typing import Any

from serving.problem import PROBLEM

RANKING = (401, 408, 413, 415, 422, 429, 503, 504)
"""Of what asks to rank: a token, a slow, large or compressed body, a field, the queue, no model yet, too late."""

_PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "field": {"type": "string", "description": "What of the request is at fault."},
    },
}
_ERROR_SCHEMA = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}


def refusals(*statuses: int, is_kserve: bool = False) -> dict[int | str, dict[str, Any]]:
    """By status what FastAPI takes as ``responses``.

    Args:
        is_kserve: whether they are in the form of KServe's protocol, which has one code for all that does not fit.
    """
    kind, schema = ("application/json", _ERROR_SCHEMA) if is_kserve else (PROBLEM, _PROBLEM_SCHEMA)
    codes = {400 if is_kserve and status == 422 else status for status in statuses}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {kind: {"schema": schema}}}
        for status in sorted(codes)
    }
