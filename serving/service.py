"""RankingService: what every protocol's requests have in common: limits, deadline, queue, and what is counted."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import TypeVar

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from recmoe.errors import RequestError, StoreError
from recmoe.ranking.clock import Clock
from recmoe.ranking.columns import AnyRequest, options_of
from recmoe.ranking.ranked import Ranked
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.texts import shown
from serving.asked import Asked, ranked_by
from serving.body import BodyReader
from serving.calibration.monitor import CalibrationMonitor
from serving.job import Deadline, Lighter
from serving.metrics import ServingMetrics
from serving.models.holder import ServedModels
from serving.models.light import marked, replay_s
from serving.models.shadow import ShadowComparison
from serving.models.split import Arm
from serving.observability.call import CALL, Call
from serving.observability.slow import SlowRequests
from serving.observability.tracing import Tracing
from serving.pool import RankingPool
from serving.problem import EncodedBodyError
from serving.reply import Encode, Read, Reply
from serving.settings import ServeSettings

T = TypeVar("T")

DEADLINE_HEADER = {
    "name": "X-Deadline-Ms",
    "in": "header",
    "required": False,
    "description": "Milliseconds until the answer must be there; it is refused early, or ranked by a lighter model, "
    "rather than late.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
"""For the OpenAPI page."""
_RANK, _LIGHT = "rank", "rank light"
"""Kinds of work: by the version that a request is for, and by the light one."""


class RankingService:
    """Answers ranking requests, whatever they are written in.

    Args:
        models: has them.
        metrics: where it is counted.
        settings: limits.
        calibration: sees what the champion predicts.
        tracing: makes spans, where they are wanted.
    """

    def __init__(
        self,
        models: ServedModels,
        metrics: ServingMetrics,
        settings: ServeSettings,
        *,
        calibration: CalibrationMonitor,
        tracing: Tracing | None,
    ) -> None:
        self.models, self.metrics, self.settings = models, metrics, settings
        self._calibration, self._tracing = calibration, tracing
        self._slow = SlowRequests(settings.log_slower_than_ms)
        self.reader = BodyReader(
            max_bytes=settings.max_body_bytes, max_held_bytes=settings.max_held_bytes, timeout_s=settings.body_s
        )
        self._pool = RankingPool(
            num_threads=settings.num_threads(),
            shares_cores=settings.shares_cores,
            max_waiting=settings.queue,
            on_length=metrics.waiting,
        )
        self._comparison = ShadowComparison(share=settings.shadow_share, metrics=metrics.models)
        models.on_light = self._expect

    async def answer(
        self, request: Request, protocol: str, read: Read, encode: Encode, *, ranker: Ranker | None = None
    ) -> Response:
        """The answer to a request over HTTP.

        Args:
            protocol: what it is counted under.
            ranker: of the version that is asked; by default the champion or the challenger, as the user has it.

        Raises:
            RequestError and whatever else ``serving.problem`` makes an answer of.
        """
        self.models.get()
        deadline = _deadline(request, self.settings.deadline_ms)
        if request.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
            raise EncodedBodyError("Content-Encoding: bodies are read as they are; send it without compression")

        async with self.reader.body(request) as body:
            self._stage("read", deadline.arrived_s)
            ranking = self.rank(
                body, deadline, protocol, read, encode, named=lambda: ranker, is_named=ranker is not None
            )
            reply = await _unless_gone(request, ranking)
        self.finished(deadline)
        return Response(
            reply.content, status_code=HTTPStatus.OK, media_type=reply.media_type, headers=dict(reply.headers)
        )

    async def rank(
        self,
        body: bytes,
        deadline: Deadline,
        protocol: str,
        read: Read,
        encode: Encode,
        *,
        named: Callable[[], Ranker | None] = lambda: None,
        is_named: bool = False,
    ) -> Reply:
        """Rank once it is the request's turn.

        Args:
            named: the ranker of the version that the request names, if it names one; asked once it has been read.
            is_named: whether it names one: then no lighter version answers.
        """
        CALL.get().protocol = protocol
        asked = Asked(body, protocol, read, encode, named, self.settings.max_explained)
        work = partial(self._rank, asked, None)
        answer = await self._pool.run(work, deadline, kind=_RANK, lighter=None if is_named else self._lighter(asked))
        if isinstance(answer, Reply):
            return answer
        ranked = answer

        def explain(_: float) -> Reply:
            # Its wait for this turn, which is counted with the other stages of the ranking.
            ranked.clock.stage("queue")
            return self._reply(asked, ranked.explained(lambda: deadline.check("ranked, but not explained")))

        # Explanations queue again, behind the requests that have come since: those are quick.
        return await self._pool.run(explain, deadline, kind="explain")

    def _rank(self, asked: Asked, light: Ranker | None, queued_s: float) -> Reply | Ranked:
        """Rank on a thread of the pool.

        Args:
            light: who does it where another one would be late.
        """
        self._stage("queue", queued_s)
        clock = Clock()
        request = asked.request(self.models.get())
        given, call = asked.named() or light, CALL.get()
        chosen, arm = self.models.choose(options_of(request)) if given is None else (given, None)
        call.model, call.is_light = chosen.info, light is not None
        try:
            ranked = ranked_by(chosen, request, clock)
        except StoreError as error:
            self.metrics.store_failed(error)
            raise
        if light is not None:
            ranked = marked(ranked)
        answer = self._reply(asked, ranked) if ranked.explain is None else ranked
        if given is None:
            self._note(asked, request, arm, ranked)
        return answer

    def _rank_again(self, asked: Asked) -> None:
        """Do what was too much for the deadline of a request; the time that it takes is all that comes of it."""
        request = asked.request(self.models.get())
        chosen, _ = self.models.choose(options_of(request))
        asked.encode(ranked_by(chosen, request, Clock()))

    def _reply(self, asked: Asked, ranked: Ranked) -> Reply:
        reply = asked.encode(ranked)
        ranked.clock.stage("write")
        CALL.get().ranked(ranked)
        self.metrics.observe(ranked, asked.protocol)
        return reply

    def _lighter(self, asked: Asked) -> Lighter | None:
        """What is done for a request where there is no time for more; None where it is refused then."""
        light = self.models.lighter if self.settings.late == "light" else None
        if light is None:
            return None
        return Lighter(partial(self._rank, asked, light), kind=_LIGHT, again=partial(self._rank_again, asked))

    def _expect(self, light: Ranker) -> None:
        """Know about how long a light version will take, before a request of it has come."""
        full_s, light_s = replay_s(self.models.get()), replay_s(light)
        known_s = self._pool.expected_s(_RANK)
        if known_s == 0:
            self._pool.guess(_RANK, full_s)
        # Requests may be larger than the replay, or smaller: what the champion takes for them is known by now.
        self._pool.guess(_LIGHT, light_s * (known_s or full_s) / full_s)

    def _note(self, asked: Asked, request: AnyRequest, arm: Arm | None, ranked: Ranked) -> None:
        """What the models to come, the one beside and the watch of the champion learn from a request."""
        self.models.live.record(asked.body, asked.read)
        if arm is not None:
            self.metrics.models.routed(arm)
        if arm != "challenger":
            self._calibration.observe(ranked)
            self._comparison.offer(self.models.shadow, request, ranked)

    def _stage(self, name: str, start_s: float) -> None:
        """A stage of the request under way ends now."""
        self.metrics.stage(name, CALL.get().stage(name, start_s))

    def finished(self, deadline: Deadline) -> None:
        """An answer is there; LateError where that is too late."""
        deadline.check("ranked")
        if CALL.get().is_light:
            self.metrics.models.lightened()
        self.metrics.stage("total", time.perf_counter() - deadline.arrived_s)

    def ended(self, call: Call) -> None:
        """A request for a ranking has been answered, in whatever way."""
        self._slow.note(call)
        if self._tracing is not None:
            self._tracing.record(call)

    def start(self) -> None:
        """Look at what is predicted from now on."""
        self._calibration.start()

    def close(self) -> None:
        """Let the threads end once nothing waits."""
        self._pool.close()
        self._comparison.close()
        self._calibration.close()
        if self._tracing is not None:
            self._tracing.close()


def _deadline(request: Request, default_ms: float) -> Deadline:
    """When a request must be answered; RequestError where its header is no time."""
    arrived_s = CALL.get().arrived_s
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
