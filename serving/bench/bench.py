"""run_bench: how much a server ranks in a second, and how long each request takes at shares of that."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from recmoe import __version__
from recmoe.client import RankClient, Ranking, ServedModel
from recmoe.client.address import authorization, split_url
from recmoe.client.request import request_body
from recmoe.errors import RequestError, ServingError
from serving.bench.load import Target
from serving.bench.payloads import Document, made_requests, requests_of_log
from serving.bench.reference import Checked
from serving.bench.tally import Times
from serving.bench.workers import Outcome, Workers

SHARES = (0.25, 0.5, 0.75, 1.0, 1.5)
"""Of the saturating rate, at which requests are sent."""
_NUM_IDS = (100_000, 100, 1)
"""Whole numbers that made ids are drawn from: as many as the model's tables allow."""
_REST_S = 0.5
"""Between two loads."""

Begin = Callable[[str], Callable[[float], None]]
"""Called with the name of each load; gives what is called with the seconds of it that have passed."""


@dataclass(frozen=True)
class BenchSettings:
    """What is sent, and how."""

    url: str
    candidates: int = 200
    """Candidates per request."""
    connections: tuple[int, ...] = (1, 8, 64)
    """Connections that each send one request after the other, to find the saturating rate."""
    rates: tuple[float, ...] = ()
    """Requests per second; by default shares of the saturating rate, which is then found first."""
    duration_s: float = 10.0
    """Seconds of each load."""
    timeout_s: float = 10.0
    """Seconds after which a request is given up."""
    deadline_ms: float | None = None
    """Sent as X-Deadline-Ms."""
    top_k: int | None = None
    """Items that are asked for; all by default."""
    payloads: int = 64
    """Different requests, which are sent in turn."""
    processes: int = 1
    """Processes that send."""
    data: tuple[str, ...] = ()
    """Log that requests are made of; made up by default."""
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """One load and what became of it. ``num_ok + num_refused + sum(other) = num_requests``."""

    connections: int | None
    """That each sent one request after the other; None where requests left by a schedule."""
    rate: float | None
    """Requests per second that were due; None where there was no schedule."""
    share: float | None
    """``rate`` as a share of the saturating rate."""
    num_requests: int
    num_ok: int
    num_refused: int
    """Answered 429."""
    other: dict[str, int]
    """Other statuses, ``timeout``, ``connection lost``, ``no connection``, ``not HTTP``."""
    elapsed_s: float
    ok_per_s: float
    candidates_per_s: float
    latency_ms: Times
    """Of ranked requests, from when they were due."""
    refused_ms: Times
    """Of those answered 429."""
    health_ms: Times
    """Of /healthz beside the load."""
    num_health_failures: int
    lag_ms: Times
    """How late the generator itself was; a part of the latency."""
    num_held: int
    """Requests that waited because the generator could open no more connections."""

    @property
    def is_generator_late(self) -> bool:
        """Whether the generator, not the server, may be what was measured."""
        lag_ms, usual_ms = self.lag_ms.p99 or 0.0, self.latency_ms.p50 or 0.0
        return self.num_held > 0 or lag_ms > max(1.0, 0.1 * usual_ms)


@dataclass
class BenchResult:
    """All loads of a run."""

    settings: BenchSettings
    model: ServedModel
    body_bytes: int
    """Of a request, on average."""
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    closed: list[Measured] = field(default_factory=list)
    saturation_per_s: float | None = None
    """The most requests per second that were ranked in ``closed``."""
    open: list[Measured] = field(default_factory=list)
    checked: Checked = field(default_factory=Checked)
    """The last ranking of each payload in each load, beside that of the server at rest."""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        model = {"name": self.model.name, "version": self.model.version, "digest": self.model.digest}
        loads = {
            kind: [{**asdict(one), "is_generator_late": one.is_generator_late} for one in found]
            for kind, found in (("closed", self.closed), ("open", self.open))
        }
        return {
            "software": __version__,
            "at": self.at,
            **asdict(self.settings),
            "model": model,
            "body_bytes": self.body_bytes,
            "saturation_per_s": self.saturation_per_s,
            **loads,
            "checked": asdict(self.checked),
        }


def run_bench(settings: BenchSettings, *, token: str | None, begin: Begin) -> BenchResult:
    """Put loads on a server and measure what becomes of them.

    Raises:
        ServingError: the server does not answer, or ranks nothing.
        RequestError: it takes no request that is made; see ``data``.
        DataError: the log cannot be read.
    """
    is_encrypted, host, port, path = split_url(settings.url.rstrip("/"))
    with RankClient(settings.url, token=token, timeout_s=settings.timeout_s) as client:
        model = client.model()
        documents, references = accepted_requests(client, model, settings)
    bodies = [request_body(**document, top_k=settings.top_k) for document in documents]
    headers = {"Host": f"{host}:{port}", "User-Agent": f"recmoe-bench/{__version__}", **authorization(token)}
    of_rank = {**headers, "Content-Type": "application/json"}
    if settings.deadline_ms is not None:
        of_rank["X-Deadline-Ms"] = f"{settings.deadline_ms:g}"
    requests = [_http("POST", f"{path}/v1/rank", of_rank, body) for body in bodies]
    result = BenchResult(settings, model, sum(map(len, bodies)) // len(bodies))
    target = Target(host, port, is_encrypted, settings.timeout_s)
    health = _http("GET", f"{path}/healthz", headers, b"")
    with Workers(target, requests, health=health, num_workers=settings.processes) as workers:
        _put_loads(workers, settings, result, references, begin)
    return result


def _put_loads(
    workers: Workers, settings: BenchSettings, result: BenchResult, references: Sequence[Ranking], begin: Begin
) -> None:
    rates: Mapping[float, float | None] = dict.fromkeys(settings.rates)
    if not rates:
        for connections in settings.connections:
            tick = begin(f"{connections} connection{'s' if connections > 1 else ''}")
            outcome = workers.closed(connections, settings.duration_s, tick=tick)
            result.closed.append(_measured(outcome, settings, connections=connections))
            result.checked.compare(references, outcome.tally.bodies)
            time.sleep(_REST_S)
        saturation = result.saturation_per_s = max(one.ok_per_s for one in result.closed)
        if saturation == 0:
            outcomes = {name: count for one in result.closed for name, count in one.other.items()}
            raise ServingError(f"{settings.url} ranked none of the requests: {outcomes or 'all were refused (429)'}")
        rates = {share * saturation: share for share in SHARES}
    for rate, share in rates.items():
        tick = begin(f"{rate:,.0f} requests/s" if share is None else f"{share:.0%} of saturation")
        outcome = workers.open(rate, settings.duration_s, max(settings.connections), tick=tick)
        result.open.append(_measured(outcome, settings, rate=rate, share=share))
        result.checked.compare(references, outcome.tally.bodies)
        time.sleep(_REST_S)


def accepted_requests(
    client: RankClient, model: ServedModel, settings: BenchSettings
) -> tuple[list[Document], list[Ranking]]:
    """Requests that the server ranks, with their rankings; it is warm after them."""

    def ranked(documents: list[Document]) -> tuple[list[Document], list[Ranking]]:
        return documents, [client.rank(**document, top_k=settings.top_k) for document in documents]

    size = {"num_requests": settings.payloads, "num_candidates": settings.candidates, "seed": settings.seed}
    if settings.data:
        return ranked(requests_of_log(model, settings.data, **size))
    for num_ids in _NUM_IDS[:-1]:
        try:
            return ranked(made_requests(model, num_ids=num_ids, **size))
        except RequestError:
            # A column of row numbers may know fewer; what is wrong otherwise stays wrong.
            continue
    return ranked(made_requests(model, num_ids=_NUM_IDS[-1], **size))


def _measured(
    outcome: Outcome,
    settings: BenchSettings,
    *,
    connections: int | None = None,
    rate: float | None = None,
    share: float | None = None,
) -> Measured:
    tally = outcome.tally
    ok_per_s = len(tally.ok_s) / outcome.elapsed_s
    return Measured(
        connections=connections,
        rate=rate,
        share=share,
        num_requests=tally.num_requests,
        num_ok=len(tally.ok_s),
        num_refused=len(tally.refused_s),
        other=dict(tally.other),
        elapsed_s=outcome.elapsed_s,
        ok_per_s=ok_per_s,
        candidates_per_s=ok_per_s * settings.candidates,
        latency_ms=Times.of(tally.ok_s),
        refused_ms=Times.of(tally.refused_s),
        health_ms=Times.of(outcome.health.ok_s),
        num_health_failures=outcome.health.num_requests - len(outcome.health.ok_s),
        lag_ms=Times.of(tally.lag_s),
        num_held=tally.num_held,
    )


def _http(method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A whole request."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
