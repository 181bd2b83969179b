"""texts: strings of a request that cannot be written again, and names and values as a message shows them."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from pydantic_core import PydanticSerializationError, to_json

from recmoe.errors import RequestError

_MAX_SHOWN = 100
"""Characters of a name that a message shows."""
_MAX_DEPTH = 6
"""Of a path that a message names: candidates, a row, a column, a list and its element are five."""


def check_whole(document: Mapping[str, Any]) -> None:
    r"""RequestError at the first string, value or name, that holds half a character.

    JSON can write half of an emoji ("\ud83d"), UTF-8 cannot, so neither an answer nor a column could hold it. Writing
    a document takes a hundredth of the time that looking at each of its values would, and so does halving it.
    """
    if not _is_whole(document):
        raise _fault("", document, _MAX_DEPTH)


def _fault(path: str, value: Any, depth: int) -> RequestError:
    """What is wrong with a value that is not whole; its own place is told, or ``depth`` levels of the way there."""
    if isinstance(value, str):
        return _half(path, value, "holds")
    if not depth:
        return RequestError(path, "holds half a character; send whole characters")
    if isinstance(value, Mapping):
        names, values = list(map(str, value)), list(value.values())
        first_name = len(names) if _is_whole(names) else _first_half(names)
        if first_name < len(names) and _is_whole(values[:first_name]):
            name = short(names[first_name])
            return _half(f"{path}.{name}" if path else name, names[first_name], "the name of this field holds")
        place = _first_half(values[: first_name + 1])
        name = short(names[place])
        return _fault(f"{path}.{name}" if path else name, values[place], depth - 1)
    place = _first_half(value)
    return _fault(f"{path}[{place}]", value[place], depth - 1)


def _first_half(parts: Sequence[Any]) -> int:
    """Place of the first of some parts that is not whole, of which there is one."""
    first, end = 0, len(parts)
    while end - first > 1:
        middle = (first + end) // 2
        if _is_whole(parts[first:middle]):
            first = middle
        else:
            end = middle
    return first


def _is_whole(value: Any) -> bool:
    """Whether no string of what JSON may hold has half a character."""
    try:
        orjson.dumps(value)
    except TypeError as error:
        if "surrogates" in str(error):
            return False
        # Numbers of more than 64 bits are whole, and so is what only Python has.
        try:
            to_json(value, fallback=lambda _: None)
        except PydanticSerializationError as other:
            if "depth" in str(other):
                raise RequestError("body", "is nested too deep; leave out what is no feature") from other
            return False
    return True


def _half(path: str, text: str, what: str) -> RequestError:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = printable(text[error.start])
        return RequestError(path, f"{what} half a character, {half} without its other half; send whole characters")
    raise AssertionError("the text is whole")


def printable(text: str) -> str:
    r"""The text with half characters written as ``\ud83d``, so that it can be sent and printed."""
    return text.encode("utf-8", "backslashreplace").decode()


def short(name: str) -> str:
    """A name as a message shows it: not longer than a line."""
    return printable(name if len(name) <= _MAX_SHOWN else f"{name[: _MAX_SHOWN - 3]}...")


def shown(value: object) -> str:
    """A value of a request as a message shows it: short, and as JSON would write it."""
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, str):
        # Of a text of megabytes no more is written than is shown.
        value = value[:40]
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return printable(text if len(text) <= 40 else f"{text[:37]}...")
