"""How long a save holds up the training, waiting for the commit and beside it, and what the copy costs.

python -m benchmarks.checkpoint [--rows 625000] [--width 16] [--saves 5] [--json]
"""

import argparse
import hashlib
import json
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks.forked import run_processes
from benchmarks.small_run import SmallRun
from recmoe.cli.output import print_columns
from recmoe.training.checkpoint_contents import list_checkpoints
from recmoe.training.checkpoint_folder import step_folder

NUM_TABLES = 4
BATCH_ROWS = 2048
WARM_STEPS, TIMED_STEPS = 10, 40


@dataclass(frozen=True)
class Timing:
    """One way of saving; times are medians over the saves after the first."""

    is_async: bool
    num_bytes: int
    """Of a checkpoint."""
    first_stall_s: float
    """How long the first save held up the training; a copy's memory is allocated then."""
    stall_s: float
    """How long the others did."""
    commit_s: float
    """From the call to the commit."""
    step_s: float
    """A step with no save under way."""
    step_beside_s: float | None
    """A step beside a save."""
    peak_bytes: int
    """Memory of the process at its highest."""


def measure(folder: Path, *, num_rows: int, width: int, num_saves: int, is_async: bool) -> Timing:
    """Save a model of four tables again and again in a process of its own."""
    work = partial(_save, folder, num_rows, width, num_saves, is_async)
    run_processes(work, folder, world_size=1)
    return Timing(**json.loads((folder / "timing.json").read_text(encoding="utf-8")))


def _save(folder: Path, num_rows: int, width: int, num_saves: int, is_async: bool, rank: int, world_size: int) -> None:
    del rank, world_size
    tables = {"backend": "torchrec", "optimizer": {"kind": "rowwise_adagrad"}}
    run = SmallRun(
        folder, tables, num_rows=num_rows, width=width, batch_rows=BATCH_ROWS, num_ids=num_rows, is_async=is_async
    )
    run.train(0, WARM_STEPS)
    began_s = time.perf_counter()
    run.train(WARM_STEPS, WARM_STEPS + TIMED_STEPS)
    step_s = (time.perf_counter() - began_s) / TIMED_STEPS
    step = WARM_STEPS + TIMED_STEPS
    stalls: list[float] = []
    commits: list[float] = []
    beside: list[float] = []
    for _ in range(num_saves):
        began_s = last_s = time.perf_counter()
        checkpoint = step_folder(folder, step)
        run.store.save(step, {})
        stalls.append(time.perf_counter() - began_s)
        while not checkpoint.exists():
            last_s = time.perf_counter()
            run.train(step, step + 1)
            step += 1
            beside.append(time.perf_counter() - last_s)
        commits.append(time.perf_counter() - began_s)
        run.store.finish()
        run.train(step, step + 1)
        step += 1
    timing = Timing(
        is_async=is_async,
        num_bytes=list_checkpoints(folder)[0].num_bytes,
        first_stall_s=stalls[0],
        stall_s=statistics.median(stalls[1:]),
        commit_s=statistics.median(commits[1:]),
        step_s=step_s,
        step_beside_s=statistics.mean(beside) if beside else None,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )
    (folder / "timing.json").write_text(json.dumps(asdict(timing)), encoding="utf-8")


def hash_rate() -> float:
    """Bytes of which a core computes the SHA-256 per second."""
    data = bytes(64 << 20)
    began_s = time.perf_counter()
    hashlib.sha256(data).digest()
    return len(data) / (time.perf_counter() - began_s)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=625_000, help=f"of each of {NUM_TABLES} tables")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--to", type=Path, help="folder on the disk to measure; a temporary one by default")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="recmoe-", dir=options.to) as folder:
        timings = [
            measure(
                Path(folder) / str(is_async),
                num_rows=options.rows,
                width=options.width,
                num_saves=options.saves,
                is_async=is_async,
            )
            for is_async in (False, True)
        ]
    if options.json:
        print(json.dumps({"timings": [asdict(one) for one in timings], "hash_bytes_per_s": hash_rate()}, indent=2))
        return 0
    size_mb = timings[0].num_bytes / 1e6
    num_parameters = NUM_TABLES * options.rows * options.width
    print(f"{num_parameters:,} parameters in tables, {size_mb:,.1f} MB per checkpoint; milliseconds\n")
    headers = ["saving", "first stall", "stall", "until commit", "step", "step beside a save", "peak MB"]
    rows = [
        (
            "beside the training" if one.is_async else "waiting",
            *(1e3 * value for value in (one.first_stall_s, one.stall_s, one.commit_s, one.step_s)),
            "" if one.step_beside_s is None else f"{1e3 * one.step_beside_s:.4f}",
            one.peak_bytes / 1e6,
        )
        for one in timings
    ]
    print_columns(headers, rows)
    rate = hash_rate()
    print(f"\nSHA-256 at {rate / 1e9:.1f} GB/s: {size_mb / rate * 1e9:,.0f} ms of the time until the commit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
