"""fuzz(): asks a server of this machine what it should refuse, one request after the other."""

import random
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.fuzz.costly import costly
from benchmarks.fuzz.grpc_calls import GrpcCalls
from benchmarks.fuzz.mutations import framings, mutated
from benchmarks.fuzz.tally import Tally
from benchmarks.fuzz.valid import ARROW, HEAD_LENGTH, ValidRequests, json_bytes
from benchmarks.fuzz.watch import ServerProcess
from benchmarks.fuzz.wire import Outcome, Sent, http_request, send
from recmoe.client import RankClient
from recmoe.errors import ServingError

NUM_CANDIDATES = 50
_PROBE = Sent("probe", "/healthz", (b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",))
_PROBE_EVERY = 50
_MEMORY_EVERY_S = 1.0


@dataclass(frozen=True)
class FuzzSettings:
    """Whom to ask, for how long, and what is too much."""

    url: str
    minutes: float = 3.0
    """Of mutations; what is costly and what is no HTTP comes once before."""
    grpc: str | None = None
    """Host and port of KServe's protocol in gRPC."""
    num_requests: int | None = None
    """Mutations after which it ends, if that is sooner."""
    with_costly: bool = True
    """Whether the largest requests are sent too."""
    limit_s: float = 30.0
    """After which a request counts as hanging; longer than the server gives a head or a body."""
    limit_ms: float = 100.0
    """Of a core that a request may take, beside what its candidates take in a right one."""
    seed: int = 0


def fuzz(settings: FuzzSettings) -> Tally:
    """Ask, and count.

    Raises:
        ServingError: there is no server, or it is gone.
    """
    parts = urlsplit(settings.url)
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    with RankClient(settings.url) as client:
        valid = ValidRequests.of(client.model(), num_candidates=NUM_CANDIDATES, seed=settings.seed)
    process = ServerProcess.listening(address[1])
    tally = Tally(settings.limit_ms)
    begun_s = time.monotonic()

    def ask(sent: Sent, calls: GrpcCalls | None = None) -> Outcome:
        before_s = process.cpu_s() if process else 0.0
        try:
            if calls is None:
                outcome = send(address, sent, limit_s=settings.limit_s)
            else:
                outcome = calls.send(sent, limit_s=settings.limit_s)
        except ConnectionRefusedError as error:
            raise ServingError(f"the server is gone after {sent.route}, {sent.name}; see its log") from error
        tally.add(sent, outcome, process.cpu_s() - before_s if process else None)
        now_s = time.monotonic() - begun_s
        if process and (not tally.memory or now_s - tally.memory[-1][0] >= _MEMORY_EVERY_S):
            tally.memory.append((now_s, process.resident_bytes()))
        return outcome

    _calibrate(tally, address, valid, process, settings)
    for sent in _first(valid, settings):
        ask(sent)
    draw, end_s = random.Random(settings.seed), time.monotonic() + 60 * settings.minutes
    with GrpcCalls(settings.grpc, valid) if settings.grpc else nullcontext() as calls:
        num_sent = 0
        while time.monotonic() < end_s and num_sent != settings.num_requests:
            if calls is not None and draw.random() < 0.1:
                ask(calls.message(draw), calls)
            else:
                ask(mutated(valid, draw))
            num_sent += 1
            if num_sent % _PROBE_EVERY == 0 and ask(_PROBE).status != "200":
                tally.faults.append(("the probe failed", _PROBE))
    return tally


def _first(valid: ValidRequests, settings: FuzzSettings) -> Iterator[Sent]:
    """What is sent once."""
    if settings.with_costly:
        yield from costly(valid)
    for name, pieces, hangs_up in framings(valid):
        yield Sent(f"HTTP: {name}", "HTTP", pieces, hangs_up=hangs_up)


def _calibrate(
    tally: Tally, address: tuple[str, int], valid: ValidRequests, process: ServerProcess | None, settings: FuzzSettings
) -> None:
    """Right requests in every form; AssertionError where one is refused. They say what a candidate takes."""
    head, rest = valid.binary_tensors()
    right = {
        "/v1/rank": (json_bytes(valid.document), {}),
        "/v1/rank (Arrow)": (valid.arrow(), {"Content-Type": ARROW}),
        valid.infer: (json_bytes(valid.tensors()), {}),
        f"{valid.infer} (binary)": (head + rest, {HEAD_LENGTH: str(len(head))}),
    }
    for route, (body, headers) in right.items():
        sent = Sent(
            "right", route, (http_request(route.partition(" ")[0], body, headers),), num_candidates=NUM_CANDIDATES
        )
        for _ in range(3):
            before_s = process.cpu_s() if process else 0.0
            outcome = send(address, sent, limit_s=settings.limit_s)
            assert outcome.status == "200", f"{route}: {outcome.status} {outcome.body[:300]!r}"
            tally.statuses[route, "200"] += 1
            if process:
                used_ms = 1000 * (process.cpu_s() - before_s)
                tally.candidate_ms = max(tally.candidate_ms, used_ms / NUM_CANDIDATES)


def replay(url: str, file: Path) -> Outcome:
    """Send what an earlier run kept, once more."""
    parts = urlsplit(url)
    sent = Sent(file.name, "replay", (file.read_bytes(),))
    return send((parts.hostname or "127.0.0.1", parts.port or 80), sent, limit_s=60)
