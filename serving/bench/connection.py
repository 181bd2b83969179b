"""BenchConnection: one connection of the load generator; a request is under way on it, or none."""

import asyncio
from collections.abc import Callable
from typing import cast

from serving.bench.answer_reader import AnswerReader, RawAnswer


class BenchConnection(asyncio.Protocol):
    """Sends bytes that were made before, and reads no more of the answer than where it ends.

    Args:
        on_answer: called with every answer.
        on_lost: called with why, once the connection is gone.
    """

    def __init__(
        self,
        on_answer: Callable[["BenchConnection", RawAnswer], None],
        on_lost: Callable[["BenchConnection", str], None],
    ) -> None:
        self._on_answer, self._on_lost = on_answer, on_lost
        self._reader = AnswerReader()
        self._transport: asyncio.Transport | None = None
        self._lost = "connection lost"

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes) -> None:
        """Send a request; there must be none under way."""
        assert self._transport is not None
        self._transport.write(request)

    def close(self, reason: str = "connection lost") -> None:
        """Give it up at once, whatever is under way."""
        self._lost = reason
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            answer = self._reader.feed(data)
        except ValueError:
            self.close("not HTTP")
            return
        if answer is not None:
            self._deliver(answer)

    def eof_received(self) -> None:
        if (answer := self._reader.end()) is not None:
            self._deliver(answer)

    def connection_lost(self, _: Exception | None) -> None:
        self._on_lost(self, self._lost)

    def _deliver(self, answer: RawAnswer) -> None:
        if not answer.keeps_open:
            assert self._transport is not None
            self._transport.close()
        self._on_answer(self, answer)
