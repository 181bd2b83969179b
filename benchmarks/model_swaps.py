"""Model swaps: a server under requests while its alias moves, beside the same server while it does not.

    .venv/bin/python -m benchmarks.model_swaps --minutes 10

The MMoE of the training benchmark is registered as several versions with other weights, so that no two score alike. One
``recmoe serve`` answers requests that leave at a steady rate, whatever becomes of those before them. In the middle half
of the time ``--swaps`` promotions and ``--rollbacks`` rollbacks move the alias; in the quarters around it none does.
Counted are requests that failed and answers that are not the offline score of the version that they name.
"""

import argparse
import asyncio
import itertools
import json
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ranking import HERE, bundle_in, items_in, request_in
from benchmarks.served import served
from recmoe.export.bundle import ModelBundle, write_bundle
from recmoe.export.replay import Replay
from recmoe.ranking import Ranker, RankRequest
from recmoe.registry.registry import Registry

NAME = "swaps"
NUM_VERSIONS = 4
NUM_CANDIDATES = (20, 50, 100, 200)
WATCH_S = 0.5


@dataclass
class Sent:
    """What became of the requests."""

    at_s: list[float] = field(default_factory=list)
    """When each answered one was due, since the start."""
    took_ms: list[float] = field(default_factory=list)
    failed: "Counter[str]" = field(default_factory=Counter)
    wrong: int = 0
    versions: "Counter[str]" = field(default_factory=Counter)


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="(%(default)s)")
    parser.add_argument("--rate", type=float, default=20, help="requests per second (%(default)s)")
    parser.add_argument("--swaps", type=int, default=20, help="(%(default)s)")
    parser.add_argument("--rollbacks", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--to", type=Path, default=HERE / ".cache" / "ranking", help="of the model (%(default)s)")
    arguments = parser.parse_args()
    bundle = bundle_in(arguments.to)
    items, _ = items_in(arguments.to, bundle)
    requests = [request_in(arguments.to, items, number) for number in NUM_CANDIDATES]
    with tempfile.TemporaryDirectory(prefix="recmoe-swaps-") as folder:
        registry = Registry.connect(f"sqlite:///{folder}/mlflow.db", folder=Path(folder))
        rankers = dict(registered(registry, bundle, Path(folder)))
        registry.promote(NAME, "1")
        expected = offline_scores(rankers, requests)
        del rankers
        source = f"models:/{NAME}@champion"
        options = ["--watch-s", str(WATCH_S), "--workers", str(arguments.workers)]
        tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        with served(source, options, folder=Path(folder), environment=tracking) as (port, _):
            duration_s = arguments.minutes * 60
            moves = Moves(registry, duration_s, num_swaps=arguments.swaps, num_rollbacks=arguments.rollbacks)
            moves.start()
            sent = asyncio.run(send(port, requests, expected, rate=arguments.rate, duration_s=duration_s))
            moves.join()
    print_found(sent, moves, duration_s)


def registered(registry: Registry, bundle_path: Path, folder: Path) -> Iterator[tuple[str, Ranker]]:
    """Versions whose dense weights are scaled, each with its own replay."""
    for number in range(1, NUM_VERSIONS + 1):
        bundle = ModelBundle.load(bundle_path)
        for weight in bundle.model.parameters():
            if weight.dim() == 2:
                weight.data = weight.data * (1 + 0.05 * number)
        rows = bundle.replay.rows
        predictions_NT = bundle.predict(rows)
        replay = Replay.capture(
            rows, encoder=bundle.encoder, task_names=bundle.tasks.names, predictions_NT=predictions_NT
        )
        path = folder / f"bundle-{number}"
        write_bundle(
            path,
            name=NAME,
            config=dict(bundle.config),
            encoder=bundle.encoder,
            model=bundle.model,
            replay=replay,
            report=None,
        )
        version = registry.register(path, name=NAME).version
        assert version is not None
        yield version, Ranker.load(path, name=NAME, version=version)
        shutil.rmtree(path)


def offline_scores(rankers: Mapping[str, Ranker], requests: Sequence[Path]) -> dict[tuple[str, int], list[Any]]:
    """Scores by version and request."""
    return {
        (version, place): [item.score for item in ranker.rank(RankRequest.parse(path.read_bytes())).items]
        for version, ranker in rankers.items()
        for place, path in enumerate(requests)
    }


class Moves(threading.Thread):
    """Moves the alias in the middle half of the time, at even distances; rollbacks among the last."""

    def __init__(self, registry: Registry, duration_s: float, *, num_swaps: int, num_rollbacks: int) -> None:
        super().__init__()
        self._registry, self._duration_s = registry, duration_s
        self._num_swaps, self._num_rollbacks = num_swaps, num_rollbacks
        self.done: list[str] = []

    def run(self) -> None:
        start_s = time.monotonic() + self._duration_s / 4
        number = self._num_swaps + self._num_rollbacks
        for place in range(number):
            time.sleep(max(0.0, start_s + place * self._duration_s / 2 / number - time.monotonic()))
            if place < self._num_swaps:
                version = str(1 + (place + 1) % NUM_VERSIONS)
                self._registry.promote(NAME, version)
                self.done.append(f"promote {version}")
            else:
                self.done.append(f"rollback to {self._registry.rollback(NAME).version}")


async def send(
    port: int,
    requests: Sequence[Path],
    expected: Mapping[tuple[str, int], list[Any]],
    *,
    rate: float,
    duration_s: float,
) -> Sent:
    """Requests by a schedule; every answer is compared."""
    sent, bodies = Sent(), [path.read_bytes() for path in requests]
    start_s = time.monotonic()
    flying: set[asyncio.Task[None]] = set()

    async def one(place: int, due_s: float) -> None:
        try:
            status, body = await post(port, bodies[place])
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            sent.failed[type(error).__name__] += 1
            return
        took_s = time.monotonic() - due_s
        if status != 200:
            sent.failed[str(status)] += 1
            return
        answer = json.loads(body)
        version = answer["model"]["version"]
        scores = [item["score"] for item in answer["items"]]
        sent.at_s.append(due_s - start_s)
        sent.took_ms.append(took_s * 1000)
        sent.versions[version] += 1
        sent.wrong += not np.allclose(scores, expected[version, place], rtol=1e-5, atol=1e-5)

    for number in itertools.count():
        due_s = start_s + number / rate
        if due_s > start_s + duration_s:
            break
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        task = asyncio.ensure_future(one(number % len(bodies), due_s))
        flying.add(task)
        task.add_done_callback(flying.discard)
    await asyncio.gather(*flying)
    return sent


async def post(port: int, body: bytes) -> tuple[int, bytes]:
    """A request on a connection of its own: status and body."""
    async with asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            head = f"POST /v1/rank HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.read()
        finally:
            writer.close()
    first, _, rest = answer.partition(b"\r\n\r\n")
    if not first.startswith(b"HTTP/1.1 "):
        raise ConnectionError("the connection ended without an answer")
    return int(first[9:12]), rest


def print_found(sent: Sent, moves: Moves, duration_s: float) -> None:
    """Counts, and times with and without moves."""
    at_s, took_ms = np.array(sent.at_s), np.array(sent.took_ms)
    is_moving = (at_s >= duration_s / 4) & (at_s < 3 * duration_s / 4)
    print(f"moves of the alias: {len(moves.done)} ({', '.join(moves.done[-moves._num_rollbacks - 1 :])} at the end)")
    print(f"answers: {len(took_ms)}, by version {dict(sorted(sent.versions.items()))}")
    print(f"failed requests: {sum(sent.failed.values())} {dict(sent.failed) or ''}")
    print(f"answers unequal to the offline score of their version: {sent.wrong}")
    for name, times in (("without moves", took_ms[~is_moving]), ("with moves", took_ms[is_moving])):
        p50, p99 = np.percentile(times, [50, 99])
        print(f"{name}: {len(times)} answers, median {p50:.1f} ms, p99 {p99:.1f} ms, longest {times.max():.1f} ms")


if __name__ == "__main__":
    main()
