"""RankingService: what every protocol's requests have in common: limits, deadline, queue, and what is counted."""

import asyncio
import math
import time
from collections.abc import Awaitable
from http import HTTPStatus
from typing import TypeVar

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from recmoe.errors import RequestError
from recmoe.ranking.clock import Clock
from recmoe.ranking.columns import DecodedRequest
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import shown
from serving.body import BodyReader
from serving.holder import ModelHolder
from serving.measured import ARRIVED_S
from serving.metrics import ServingMetrics
from serving.pool import Deadline, RankingPool
from serving.problem import EncodedBodyError
from serving.reply import Decode, Encode, Read, Reply
from serving.settings import ServeSettings

T = TypeVar("T")

DEADLINE_HEADER = {
    "name": "X-Deadline-Ms",
    "in": "header",
    "required": False,
    "description": "Milliseconds until the answer must be there; it is refused early rather than late.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
"""For the OpenAPI page."""


class RankingService:
    """Answers ranking requests, whatever they are written in.

    Args:
        holder: has the model.
        metrics: where it is counted.
        settings: limits.
    """

    def __init__(self, holder: ModelHolder, metrics: ServingMetrics, settings: ServeSettings) -> None:
        self.holder, self.metrics, self.settings = holder, metrics, settings
        self.reader = BodyReader(
            max_bytes=settings.max_body_bytes, max_held_bytes=settings.max_held_bytes, timeout_s=settings.body_s
        )
        self._pool = RankingPool(
            num_threads=settings.num_threads(),
            shares_cores=settings.shares_cores,
            max_waiting=settings.queue,
            on_length=metrics.waiting,
        )

    async def answer(self, request: Request, ranker: Ranker, protocol: str, decode: Decode, encode: Encode) -> Response:
        """The answer to a request over HTTP.

        Args:
            ranker: of the model that is asked.
            protocol: what it is counted under.

        Raises:
            RequestError and whatever else ``serving.problem`` makes an answer of.
        """
        deadline = _deadline(request, self.settings.deadline_ms)
        if request.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
            raise EncodedBodyError("Content-Encoding: bodies are read as they are; send it without compression")
        async with self.reader.body(request) as body:
            self.metrics.stage("read", time.perf_counter() - deadline.arrived_s)

            def read(body: bytes) -> tuple[Ranker, DecodedRequest]:
                return ranker, decode(ranker, body)

            reply = await _unless_gone(request, self.rank(body, deadline, protocol, read, encode))
        self.finished(deadline)
        return Response(
            reply.content, status_code=HTTPStatus.OK, media_type=reply.media_type, headers=dict(reply.headers)
        )

    async def rank(self, body: bytes, deadline: Deadline, protocol: str, read: Read, encode: Encode) -> Reply:
        """Rank once it is the request's turn."""

        def work(waited_s: float) -> Reply:
            self.metrics.stage("queue", waited_s)
            clock = Clock()
            ranker, columns = read(body)
            clock.stage("decode")
            (ranked,) = ranker.rank_columns([columns], clock=clock)
            if isinstance(ranked, RequestError):
                raise ranked
            reply = encode(ranked)
            self.metrics.observe(ranked, protocol)
            return reply

        return await self._pool.run(work, deadline)

    def finished(self, deadline: Deadline) -> None:
        """An answer is there; LateError where that is too late."""
        deadline.check("ranked")
        self.metrics.stage("total", time.perf_counter() - deadline.arrived_s)

    def close(self) -> None:
        """Let the ranking threads end once nothing waits."""
        self._pool.close()


def _deadline(request: Request, default_ms: float) -> Deadline:
    """When a request must be answered; RequestError where its header is no time."""
    arrived_s: float = request.scope[ARRIVED_S]
    given = request.headers.get("x-deadline-ms")
    if given is None:
        return Deadline(arrived_s, default_ms)
    try:
        allowed_ms = float(given)
    except ValueError:
        allowed_ms = math.nan
    if not 0 < allowed_ms < math.inf:
        raise RequestError("X-Deadline-Ms", f"expected milliseconds above 0, found {shown(given)}")
    return Deadline(arrived_s, allowed_ms)


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The outcome of a ranking; ClientDisconnect, and no ranking if it was not begun, once the client has hung up."""
    ranking = asyncio.ensure_future(work)
    # The body has been read: what comes next is the end of the connection.
    gone = asyncio.ensure_future(request.receive())
    gone.add_done_callback(lambda _: ranking.cancel())
    try:
        return await ranking
    except asyncio.CancelledError:
        if gone.done() and not gone.cancelled():
            raise ClientDisconnect from None
        raise
    finally:
        gone.cancel()
