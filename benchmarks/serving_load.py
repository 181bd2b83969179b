"""Serving under load: one process, two workers and Ray Serve, at shares of what saturates each; and a worker killed.

    .venv/bin/python -m benchmarks.serving_load --duration 10

The MMoE of the ranking benchmark behind ``recmoe serve``. For each form of the server the saturating rate is found with
1, 2, 8 and 64 connections that send one request after the other; then requests leave by a schedule at 25 to 150 % of
it, whatever becomes of those before them. Every payload's last ranking in every load is compared with the server's at
rest. Then a worker of two is killed while requests leave at half of the saturating rate.

Server and generator share the machine: on few cores both are slower than they would be apart.
"""

import argparse
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil
from rich.console import Console

from benchmarks.ranking import HERE, bundle_in
from benchmarks.served import served
from serving.bench.bench import BenchResult, BenchSettings, run_bench
from serving.bench.table import bench_notes, bench_table

FORMS = {
    "one process": [],
    "two workers": ["--workers", "2"],
    "Ray Serve, two replicas": ["--replicas", "2"],
}
DEADLINE_MS = 1000.0
CONNECTIONS = (1, 2, 8, 64)


@dataclass(frozen=True)
class Recovery:
    """A worker that was killed under load."""

    seconds: float
    """Until another one served in its place."""
    result: BenchResult


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=10, help="seconds of each load (%(default)s)")
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=list(FORMS), help="of the server; all by default")
    parser.add_argument("--candidates", type=int, default=200, help="of a request (%(default)s)")
    parser.add_argument("--precision", default="fp32", help="fp32 or bf16 (%(default)s)")
    parser.add_argument("--to", type=Path, default=HERE / ".cache" / "ranking", help="of the model (%(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures to a file")
    arguments = parser.parse_args()
    bundle = bundle_in(arguments.to)
    settings = BenchSettings(
        "",
        candidates=arguments.candidates,
        connections=CONNECTIONS,
        duration_s=arguments.duration,
        deadline_ms=DEADLINE_MS,
    )
    figures = {}
    for form in arguments.forms:
        options = [*FORMS[form], "--precision", arguments.precision, "--calibration-band", "0"]
        with served(str(bundle), options, folder=arguments.to, environment={}) as (port, _):
            result = run_bench(_at(settings, port), token=None, begin=_announced(form))
        show(f"{form}, {arguments.precision}", result)
        figures[form] = result.document()
        if form == "two workers":
            recovery = killed(bundle, options, settings, rate=0.5 * (result.saturation_per_s or 2.0))
            show(f"{form}, of which one is killed: another served after {recovery.seconds:.1f} s", recovery.result)
            figures["killed"] = {"recovery_s": recovery.seconds, **recovery.result.document()}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


def killed(bundle: Path, options: Sequence[str], settings: BenchSettings, *, rate: float) -> Recovery:
    """Requests at a steady rate for 20 seconds; one worker is killed after five."""
    steady = replace(settings, rates=(rate,), duration_s=20.0)
    with served(str(bundle), options, folder=bundle.parent, environment={}) as (port, process):
        _wait_for(lambda: _num_workers(port) == 2)
        seconds = []

        def kill() -> None:
            time.sleep(5)
            os.kill(psutil.Process(process.pid).children()[0].pid, signal.SIGKILL)
            start_s = time.monotonic()
            # The page of a worker that is about to answer still counts the one that has gone.
            _wait_for(lambda: _num_workers(port) == 1)
            _wait_for(lambda: _num_workers(port) == 2)
            seconds.append(time.monotonic() - start_s)

        def begin(_: str) -> Callable[[float], None]:
            threading.Thread(target=kill).start()
            return lambda _: None

        result = run_bench(_at(steady, port), token=None, begin=begin)
        _wait_for(lambda: bool(seconds))
    return Recovery(seconds[0], result)


def show(title: str, result: BenchResult) -> None:
    """The loads of a server."""
    print(f"\n{title}")
    Console(width=170).print(bench_table(result))
    for note in bench_notes(result):
        print(note)


def _at(settings: BenchSettings, port: int) -> BenchSettings:
    return replace(settings, url=f"http://127.0.0.1:{port}")


def _announced(form: str) -> Callable[[str], Callable[[float], None]]:
    def begin(load: str) -> Callable[[float], None]:
        print(f"{form}: {load}", flush=True)
        return lambda _: None

    return begin


def _num_workers(port: int) -> int:
    """Workers that serve, as the metrics say; none while the one that was asked is gone."""
    try:
        page = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
    except httpx.TransportError:
        return -1
    lines = [line for line in page.splitlines() if line.startswith("recmoe_workers ")]
    return int(float(lines[0].split()[1])) if lines else 0


def _wait_for(is_so: Callable[[], bool], limit_s: float = 120.0) -> None:
    start_s = time.monotonic()
    while not is_so():
        if time.monotonic() > start_s + limit_s:
            raise SystemExit(f"it has not come about in {limit_s:g} s; stopped")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
