"""body: the bytes of a request, as far as they are allowed to go on."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import numpy as np
from fastapi import Request

from recmoe.errors import RequestError
from recmoe.ranking.request import MAX_FIELDS
from serving.pool import OverloadError
from serving.problem import BodyTooLargeError, SlowBodyError

_PIECE_BYTES = 2**17
_MANY_NAMES = 100_000
"""Names up to which it takes no time to speak of to make one object of them all."""
_QUOTE, _COLON, _OPEN, _CLOSE = b'":{}'
_OTHERS = bytes(set(range(256)) - {_QUOTE, _COLON, _OPEN, _CLOSE})


class BodyReader:
    """Reads bodies, so many bytes of each and of all that are in hand.

    Args:
        max_bytes: of one body.
        max_held_bytes: of all whose requests are not answered yet; clients decide how many come at once.
        timeout_s: for a body to arrive.
    """

    def __init__(self, *, max_bytes: int, max_held_bytes: int, timeout_s: float) -> None:
        self._max_bytes, self._max_held_bytes, self._timeout_s = max_bytes, max_held_bytes, timeout_s
        self._num_held = 0

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """All of a body, which counts as held until the context ends.

        Raises:
            BodyTooLargeError, OverloadError, SlowBodyError, ClientDisconnect: it does not come to its end.
        """
        announced = request.headers.get("content-length", "")
        if announced.isdecimal():
            self._check(int(announced), int(announced))
        pieces: list[bytes] = []
        num_held = 0
        try:
            try:
                async with asyncio.timeout(self._timeout_s):
                    async for piece in request.stream():
                        num_held += len(piece)
                        self._num_held += len(piece)
                        self._check(num_held, 0)
                        pieces.append(piece)
            except TimeoutError:
                raise SlowBodyError(f"the request did not arrive within {self._timeout_s:g} s") from None
            body = b"".join(pieces)
            pieces.clear()
            yield body
        finally:
            self._num_held -= num_held

    @contextmanager
    def held(self, num_bytes: int) -> Iterator[None]:
        """A body that has been read elsewhere; OverloadError where there are too many of them."""
        self._check(num_bytes, num_bytes)
        self._num_held += num_bytes
        try:
            yield
        finally:
            self._num_held -= num_bytes

    def _check(self, num_bytes: int, num_to_come: int) -> None:
        if num_bytes > self._max_bytes:
            raise BodyTooLargeError(f"the request has more than {self._max_bytes} bytes; send fewer candidates at once")
        if self._num_held + num_to_come > self._max_held_bytes:
            raise OverloadError(
                "memory", "too many bytes of other requests are in hand; try again later", retry_after_s=1
            )


def check_values(body: bytes, max_values: int) -> None:
    """RequestError where a body may hold more values than are read, or an object of it more names.

    Reading JSON takes its time per value, not per byte: 16 MB may hold eight million empty lists, and no other thread
    runs while they are made. Commas and brackets are counted in a hundredth of that time, those in strings too.
    """
    if len(body) <= max_values:
        return
    bytes_N = np.frombuffer(body, np.uint8)
    # Piece by piece, as what is counted then stays in the processor's cache.
    pieces = (bytes_N[start : start + _PIECE_BYTES] for start in range(0, len(body), _PIECE_BYTES))
    num_values = sum(int(np.count_nonzero(piece == ord(sign))) for piece in pieces for sign in ",[{")
    if num_values > max_values:
        raise too_many_values(num_values, "commas and opening brackets", max_values)
    if body.count(b":") > _MANY_NAMES:
        num_names = most_names(body)
        if num_names > MAX_FIELDS:
            raise RequestError(
                "body", f"has an object of {num_names} fields, at most {MAX_FIELDS} are read; leave out the others"
            )


def most_names(body: bytes) -> int:
    """Fields of the largest object of a JSON document, without making it; of what is no JSON any number.

    An object of half a million names takes several times as long to make as ten thousand candidates of 49 do.
    """
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    signs = np.frombuffer(body.translate(None, _OTHERS), np.uint8)
    # Small numbers take a third of the time, and whether they are odd survives that they overflow.
    signs = signs[np.cumsum(signs == _QUOTE, dtype=np.uint8) % 2 == 0]
    num_names = np.cumsum(signs == _COLON, dtype=np.int32)
    braces = np.flatnonzero(signs >= _OPEN)
    if not len(braces):
        return 0
    # Names between a brace and the next one, by the object that they belong to: those of one depth follow one another.
    num_between = np.diff(num_names[braces], append=num_names[-1])
    opens = signs[braces] == _OPEN
    by_depth = np.argsort(np.cumsum(np.where(opens, 1, -1)), kind="stable")
    return int(np.bincount(np.cumsum(opens[by_depth]), num_between[by_depth]).max())


def too_many_values(num_values: int, what: str, max_values: int) -> RequestError:
    """The error of a request that holds more than is read."""
    return RequestError(
        "body",
        f"has {num_values} {what}, at most {max_values} are read; "
        "send fewer candidates at once, or raise the server's max_values",
    )
