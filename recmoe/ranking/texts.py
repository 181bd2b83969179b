"""texts: strings of a request that cannot be written again, and names as a message shows them."""

from collections.abc import Iterator, Mapping
from typing import Any

from recmoe.errors import RequestError

_MAX_SHOWN = 100
"""Characters of a name that a message shows."""


def check_whole(document: Mapping[str, Any]) -> None:
    r"""RequestError at the first string, value or name, that holds half a character.

    JSON can write half of an emoji ("\ud83d"), UTF-8 cannot, so neither an answer nor a column could hold it.
    """
    # No recursion: a request may be nested deeper than Python's stack.
    left: list[Iterator[tuple[str, Any]]] = [_parts("", document)]
    while left:
        for path, value in left[-1]:
            if isinstance(value, str):
                _check_text(value, path, "holds")
            elif isinstance(value, Mapping | list):
                left.append(_parts(path, value))
                break
        else:
            left.pop()


def _parts(path: str, value: Mapping[Any, Any] | list[Any]) -> Iterator[tuple[str, Any]]:
    """What an object or a list holds, each with its path; a list's own numbers and an object's names are in it."""
    if isinstance(value, list):
        for index, element in enumerate(value):
            yield f"{path}[{index}]", element
        return
    for name, element in value.items():
        inner = f"{path}.{short(str(name))}" if path else short(str(name))
        _check_text(str(name), inner, "the name of this field holds")
        yield inner, element


def _check_text(text: str, path: str, what: str) -> None:
    try:
        # Faster than a search, and texts may be of megabytes.
        text.encode()
    except UnicodeEncodeError as error:
        half = printable(text[error.start])
        raise RequestError(
            path, f"{what} half a character, {half} without its other half; send whole characters"
        ) from error


def printable(text: str) -> str:
    r"""The text with half characters written as ``\ud83d``, so that it can be sent and printed."""
    return text.encode("utf-8", "backslashreplace").decode()


def short(name: str) -> str:
    """A name as a message shows it: not longer than a line."""
    return printable(name if len(name) <= _MAX_SHOWN else f"{name[: _MAX_SHOWN - 3]}...")
