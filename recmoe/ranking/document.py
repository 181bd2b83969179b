"""document_of(): the JSON of a request, read within a time that its bytes bound, whatever they are."""

import gc
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson
from pydantic_core import from_json

from recmoe.errors import RequestError
from recmoe.ranking.texts import check_whole, shown

_ESCAPED_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""How JSON writes half of an emoji; most are followed by the other half."""

_LARGE = 2**20
"""Bytes from which a document is large."""


def document_of(document: bytes | str | Mapping[str, Any]) -> Mapping[str, Any]:
    """The object that JSON writes, or that it became; RequestError where it is none, or holds half a character."""
    may_hold_halves = True
    if isinstance(document, bytes | str):
        document, may_hold_halves = _parsed(document)
    if not isinstance(document, Mapping):
        raise RequestError("body", f"expected an object, found {shown(document)}")
    if may_hold_halves:
        check_whole(document)
    return document


def _parsed(text: bytes | str) -> tuple[Any, bool]:
    """A JSON document, and whether a string of it may hold half a character.

    The fast parser takes UTF-8 without such halves, NaN and Infinity, as nearly every request is; another one takes NaN
    and Infinity too. The slow one takes the rest, and says what is wrong with what is no JSON; of what is large only
    what it alone may take, for it takes time: of half a character in there the place is told, and not the field.
    """
    try:
        with _uncollected():
            return orjson.loads(text), False
    except orjson.JSONDecodeError as error:
        is_large = len(text) > _LARGE
        if is_large and "surrogate in string" in error.msg:
            raise RequestError(
                "body", f"holds half a character, at {error.pos}, without its other half; send whole characters"
            ) from error
        if error.doc[error.pos : error.pos + 1] in ("N", "I"):
            try:
                with _uncollected():
                    return from_json(text), False
            except ValueError as other:
                if is_large:
                    raise RequestError("body", f"is not JSON: {other}") from other
        elif is_large and not _is_of_characters(error):
            raise RequestError("body", f"is not JSON: {error}") from error
    may_hold_halves = True
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text))
            may_hold_halves = "\\u" in text and _ESCAPED_HALF.search(text) is not None
        with _uncollected():
            return json.loads(text), may_hold_halves
    except (ValueError, RecursionError) as error:
        raise RequestError("body", f"is not JSON: {error}") from error


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for garbage: making a quarter of a million lists would begin hundreds, and JSON holds no cycles."""
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_enabled:
            gc.enable()


def _is_of_characters(error: orjson.JSONDecodeError) -> bool:
    """Whether a document may be of another encoding than UTF-8, by why the fast parser gave up."""
    return "surrogate" in error.msg or "BOM" in error.msg
