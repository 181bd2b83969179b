"""send(): bytes to a server over a connection of their own, whether or not they are HTTP, and what comes back."""

import socket
import time
from dataclasses import dataclass

from serving.bench.answer_reader import AnswerReader

CLOSED, GONE, HANG, NO_HTTP = "closed", "gone", "hang", "no HTTP"
"""The server hung up without an answer; the client did, and waits for none; nothing came in time; no HTTP came."""


@dataclass(frozen=True)
class Sent:
    """A request, or what passes for one."""

    name: str
    """What is wrong with it."""
    route: str
    pieces: tuple[bytes, ...]
    """Sent one after the other, a moment apart."""
    hangs_up: bool = False
    """Whether the client closes the connection as soon as all is sent."""
    num_candidates: int = 0
    """That it asks to be ranked, if it is right."""


@dataclass(frozen=True)
class Outcome:
    """What became of a request."""

    status: str
    """An HTTP status, or one of the words above."""
    seconds: float
    body: bytes = b""


def http_request(path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """A whole POST request, after whose answer the connection ends."""
    lines = [f"POST {path} HTTP/1.1", "Host: fuzz", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def send(address: tuple[str, int], sent: Sent, *, limit_s: float) -> Outcome:
    """Send a request and read one answer.

    Args:
        limit_s: seconds after which it counts as hanging.
    """
    begun_s = time.monotonic()

    def outcome(status: str, body: bytes = b"") -> Outcome:
        return Outcome(status, time.monotonic() - begun_s, body)

    with socket.create_connection(address, timeout=limit_s) as connection:
        try:
            for index, piece in enumerate(sent.pieces):
                if index:
                    time.sleep(0.01)
                connection.sendall(piece)
            if sent.hangs_up:
                return outcome(GONE)
        except TimeoutError:
            return outcome(HANG)
        except OSError:
            # It was refused while it was sent; the answer may be there.
            pass
        reader = AnswerReader()
        try:
            while data := connection.recv(2**18):
                if (answer := reader.feed(data)) is not None:
                    return outcome(str(answer.status), answer.body)
            last = reader.end()
            return outcome(CLOSED) if last is None else outcome(str(last.status), last.body)
        except TimeoutError:
            return outcome(HANG)
        except ValueError:
            return outcome(NO_HTTP)
        except OSError:
            return outcome(CLOSED)
