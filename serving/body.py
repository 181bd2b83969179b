"""body: the bytes of a request, as far as they are allowed to go on."""

import asyncio

import numpy as np
from fastapi import Request

from recmoe.errors import RequestError
from serving.problem import BodyTooLargeError, SlowBodyError


async def read_body(request: Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """All of the body.

    Raises:
        BodyTooLargeError, SlowBodyError, ClientDisconnect: it does not come to its end.
    """
    too_large = f"the request has more than {max_bytes} bytes; send fewer candidates at once"
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise BodyTooLargeError(too_large)
    pieces: list[bytes] = []
    num_bytes = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for piece in request.stream():
                num_bytes += len(piece)
                if num_bytes > max_bytes:
                    raise BodyTooLargeError(too_large)
                pieces.append(piece)
    except TimeoutError:
        raise SlowBodyError(f"the request did not arrive within {timeout_s:g} s") from None
    return b"".join(pieces)


def check_values(body: bytes, max_values: int) -> None:
    """RequestError where a body may hold more values than are read.

    Reading JSON takes its time per value, not per byte: 16 MB may hold eight million empty lists, and no other thread
    runs while they are made. Commas and brackets are counted in a hundredth of that time, those in strings too.
    """
    if len(body) <= max_values:
        return
    bytes_N = np.frombuffer(body, np.uint8)
    num_values = sum(int(np.count_nonzero(bytes_N == ord(sign))) for sign in ",[{")
    if num_values > max_values:
        raise RequestError(
            "body",
            f"has {num_values} commas and opening brackets, at most {max_values} are read; "
            "send fewer candidates at once, or raise the server's max_values",
        )
