"""Call: one request for a ranking or a page, and what becomes of it; log lines and spans are made of it."""

import re
import time
import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from recmoe.ranking.ranked import Ranked
    from recmoe.ranking.request import ModelInfo

REQUEST_ID = "x-request-id"
"""Header, and key of gRPC's metadata, in requests and in answers."""
_TRACE_HEADERS = ("traceparent", "tracestate")
# What a client gives is written into logs and headers: nothing that could end a line, and not much of it.
_VALID_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class Stage(NamedTuple):
    """What was done in which time, by ``time.perf_counter``."""

    name: str
    start_s: float
    end_s: float


@dataclass(eq=False)
class Call:
    """A request that is under way; it holds nothing of a user or an item."""

    request_id: str
    method: str
    """Of HTTP, or ``gRPC``."""
    path: str
    is_ranking: bool
    """Whether it asks for a ranking."""
    trace_headers: Mapping[str, str]
    """What W3C's trace context says of the caller's span; empty where it has none."""
    arrived_s: float = field(default_factory=time.perf_counter)
    """When its head was there."""
    protocol: str | None = None
    model: "ModelInfo | None" = None
    """Who ranks, once that is known."""
    is_light: bool = False
    """Whether a lighter version ranks, as another one would be late."""
    num_candidates: int | None = None
    stages: list[Stage] = field(default_factory=list)
    """Those that have ended."""
    status: int | None = None
    """Of HTTP; what gRPC answers is counted under the code that is its like."""
    ended_s: float | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str], *, method: str, path: str, is_ranking: bool) -> "Call":
        """A request that has just arrived.

        Args:
            headers: by names in lower case. A request id that is not fit to be written down is replaced by a new one.
        """
        given = headers.get(REQUEST_ID, "")
        request_id = given if _VALID_ID.fullmatch(given) else uuid.uuid4().hex
        trace_headers = {name: headers[name] for name in _TRACE_HEADERS if name in headers}
        return cls(request_id, method, path, is_ranking, trace_headers)

    @property
    def total_ms(self) -> float:
        """From arrival to the answer, or to now."""
        return ((self.ended_s or time.perf_counter()) - self.arrived_s) * 1000

    def stage(self, name: str, start_s: float) -> float:
        """Seconds of the stage that ends now."""
        stage = Stage(name, start_s, time.perf_counter())
        self.stages.append(stage)
        return stage.end_s - start_s

    def ranked(self, ranked: "Ranked") -> None:
        """There is a ranking, whose stages follow one another."""
        self.num_candidates = ranked.num_candidates
        start_s = ranked.clock.start_s
        for name, time_s in ranked.clock.stages_s.items():
            self.stages.append(Stage(name, start_s, start_s + time_s))
            start_s += time_s

    def end(self, status: int) -> None:
        """The answer goes out."""
        self.status, self.ended_s = status, time.perf_counter()


CALL: ContextVar[Call] = ContextVar("call")
"""The request that is being answered, in its task and in the thread that ranks for it."""
