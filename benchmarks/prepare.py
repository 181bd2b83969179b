"""Preparation of a log larger than the memory it is allowed, in this process under a hard limit and in Ray workers.

    python -m benchmarks.prepare --memory 512 --times 4.2 --workers 2

Most ids of the log occur once: counting them all in memory takes more than is allowed, whatever the code. What
counts as taken is what all processes of the job hold beyond what they held idle (started, everything imported, a log of
a thousand rows prepared): their proportional set sizes, sampled. In one process the kernel enforces it as well:
RLIMIT_DATA lies that much above the idle process, and an allocation beyond it fails.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

FILE_ROWS = 1 << 20
GROUP_ROWS = 1 << 16
NUM_RETURNING = 100_000
"""Users that come back; all others are seen once."""
RETURNING_SHARE = 0.2
SAMPLE_S = 0.05
MB = 1_000_000


@dataclass(frozen=True)
class Measured:
    """One preparation."""

    name: str
    seconds: float
    idle_mb: float
    peak_mb: float
    """Beyond ``idle_mb``."""
    outcome: str
    """The encoder's fingerprint, or why there is none."""


def log_rows(num_rows: int, random: np.random.Generator) -> pa.Table:
    """Users as text, sessions as integers, lists of tags, three numbers and a click."""
    returning = random.random(num_rows) < RETURNING_SHARE
    user = np.where(returning, random.integers(0, NUM_RETURNING, num_rows), random.integers(10**11, 10**12, num_rows))
    lengths = random.integers(0, 4, num_rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    tags = random.zipf(1.2, offsets[-1]) % 500_000
    price = np.where(random.random(num_rows) < 0.05, np.nan, random.lognormal(2, 1, num_rows))
    return pa.table(
        {
            "user_id": pc.binary_join_element_wise("user", pa.array(user).cast(pa.string()), "-"),
            "session_id": random.integers(0, 2**62, num_rows),
            "tags": pa.ListArray.from_arrays(pa.array(offsets), pa.array(tags)),
            "price": pa.array(price, from_pandas=True),
            "age": random.normal(40, 12, num_rows),
            "position": random.integers(0, 30, num_rows).astype(np.float64),
            "click": random.integers(0, 2, num_rows),
        }
    )


def write_log(folder: Path, num_bytes: int) -> tuple[Path, int, int]:
    """Files of at least so many bytes as Arrow tables; the config, and how many rows and bytes there are."""
    folder.mkdir(parents=True)
    (folder / "train").mkdir()
    total_rows = total_bytes = 0
    while total_bytes < num_bytes:
        rows = log_rows(min(FILE_ROWS, num_bytes // 60 + 1000), np.random.default_rng(total_rows))
        pq.write_table(rows, folder / "train" / f"{total_rows:012d}.parquet", row_group_size=GROUP_ROWS)
        total_rows, total_bytes = total_rows + rows.num_rows, total_bytes + rows.nbytes
    often = {"kind": "vocabulary", "min_count": 2}
    forms = ["value", "bucket", "vector"]
    config = {
        "name": "large",
        "data": {"train": str(folder / "train")},
        "inputs": {
            "features": {
                "user_id": {"kind": "id", "side": "user", "encoding": often},
                "session_id": {"kind": "id", "side": "context", "encoding": often},
                "tags": {"kind": "id_list", "encoding": often},
                "price": {"kind": "numeric", "log1p": True, "forms": forms},
                "age": {"kind": "numeric", "side": "user", "forms": forms},
                "position": {"kind": "numeric", "side": "context"},
            }
        },
        "tasks": {"ctr": {"kind": "binary", "label": "click"}},
    }
    path = folder / "config.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")
    return path, total_rows, total_bytes


def prepare_once(folder: Path, *, memory_mb: int, workers: int, counted_mb: int) -> None:
    """What the measured process does: idle, then the log.

    Args:
        folder: holds ``small`` and ``large``.
        memory_mb: what it may take; in one process also the hard limit.
        workers: of Ray; 0 prepares in this process.
        counted_mb: what it is told that it may take.
    """
    from pipelines.prepare import reading_on_ray
    from recmoe.experiment import load_experiment
    from recmoe.runs.encoder import ReadHere
    from recmoe.runs.prepare import prepare_run

    with reading_on_ray(num_workers=workers) if workers else nullcontext(ReadHere()) as reading:
        if workers:
            _wake(workers)
        for log in ("small", "large"):
            config = load_experiment(folder / log / "config.yaml", [f"data.memory_gb={counted_mb / 1000}"])
            with tempfile.TemporaryDirectory(dir=folder) as run:
                if log == "large":
                    print("idle", flush=True)
                    sys.stdin.readline()
                    if not workers:
                        held = _status_mb("VmData")
                        resource.setrlimit(resource.RLIMIT_DATA, (int((held + memory_mb) * MB), resource.RLIM_INFINITY))
                try:
                    encoder = prepare_run(config, Path(run), resume=False, reading=reading)
                    outcome = encoder.fingerprint
                except (MemoryError, pa.ArrowMemoryError) as error:
                    outcome = f"out of memory ({type(error).__name__})"
                if log == "large":
                    print(outcome, flush=True)


def _wake(workers: int) -> None:
    """Have every worker started and everything imported there: Ray would do so only when it is needed."""
    import ray

    def load() -> int:
        import pipelines.prepare  # noqa: F401

        time.sleep(1)
        return os.getpid()

    task = ray.remote(num_cpus=1)(load)
    while len({*ray.get([task.remote() for _ in range(workers)])}) < workers:
        pass


def _status_mb(field: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / MB
    raise AssertionError(field)


def measure(name: str, folder: Path, *, memory_mb: int, workers: int, counted_mb: int) -> Measured:
    """Run ``prepare_once`` in a process of its own and watch what its processes take."""
    command = [sys.executable, "-m", "benchmarks.prepare", "--measured", str(folder), "--memory", str(memory_mb),
               "--workers", str(workers), "--counted", str(counted_mb)]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while (line := process.stdout.readline()).strip() != "idle":
            if not line:
                raise SystemExit(f"{name}: ended with status {process.wait()}")
        time.sleep(1)
        idle_mb = _held_mb(process.pid)
        peak_mb = idle_mb
        started_s = time.monotonic()
        process.stdin.write("\n")
        process.stdin.flush()
        outcome: list[str] = []
        answer = process.stdout
        waiting = threading.Thread(target=lambda: outcome.append(answer.readline().strip()))
        waiting.start()
        while waiting.is_alive():
            peak_mb = max(peak_mb, _held_mb(process.pid))
            waiting.join(SAMPLE_S)
        seconds = time.monotonic() - started_s
        process.stdin.close()
    return Measured(name, seconds, idle_mb, peak_mb - idle_mb, outcome[0])


def _held_mb(pid: int) -> float:
    """Proportional set sizes of a process and all below it: shared pages are counted once."""
    total = 0
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return 0.0
    for process in processes:
        try:
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            continue
    return total / MB


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m benchmarks.prepare``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prepare", description=__doc__)
    parser.add_argument("--memory", type=int, default=512, help="MB that preparation may take")
    parser.add_argument("--times", type=float, default=4.2, help="size of the log as Arrow tables, in allowed memories")
    parser.add_argument("--workers", type=int, default=2, help="Ray workers; 0 leaves Ray out")
    parser.add_argument("--to", type=Path, help="folder for the log, kept; a temporary one by default")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--measured", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--counted", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measured is not None:
        prepare_once(options.measured, memory_mb=options.memory, workers=options.workers, counted_mb=options.counted)
        return 0
    with tempfile.TemporaryDirectory() if options.to is None else nullcontext(options.to) as place:
        folder = Path(place).resolve()
        if not (folder / "small").exists():
            write_log(folder / "small", 60_000)
            _, num_rows, num_bytes = write_log(folder / "large", int(options.memory * options.times * MB))
            (folder / "size.json").write_text(json.dumps({"rows": num_rows, "bytes": num_bytes}), encoding="utf-8")
        size = json.loads((folder / "size.json").read_text(encoding="utf-8"))
        found = compare(folder, size, memory_mb=options.memory, workers=options.workers)
    if options.json is not None:
        options.json.write_text(json.dumps([vars(one) for one in found], indent=1), encoding="utf-8")
    fingerprints = {one.outcome for one in found if not one.outcome.startswith("out of memory")}
    is_within = all(one.peak_mb <= options.memory for one in found)
    print("same encoder in all" if len(fingerprints) == 1 else f"DIFFERENT encoders: {fingerprints}")
    return 0 if len(fingerprints) == 1 and is_within else 1


def compare(folder: Path, size: dict[str, Any], *, memory_mb: int, workers: int) -> list[Measured]:
    """Prepare the log in every way, and print what it took."""
    print(
        f"log: {size['rows']:,} rows, {size['bytes'] / MB:,.0f} MB as Arrow tables, "
        f"{size['bytes'] / MB / memory_mb:.1f} times the {memory_mb} MB allowed"
    )
    ways = [("one process, spilling off", 0, 1_000_000), ("one process", 0, memory_mb)]
    if workers:
        ways.append((f"{workers} Ray workers", workers, memory_mb))
    found = []
    print(f"{'':26}{'seconds':>9}{'idle MB':>9}{'peak MB':>9}   encoder")
    for name, num_workers, counted_mb in ways:
        one = measure(name, folder, memory_mb=memory_mb, workers=num_workers, counted_mb=counted_mb)
        print(f"{name:26}{one.seconds:9.1f}{one.idle_mb:9.0f}{one.peak_mb:9.0f}   {one.outcome[:40]}", flush=True)
        found.append(one)
    return found


if __name__ == "__main__":
    sys.exit(main())
