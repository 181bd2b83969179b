"""Time and memory of look-up and update: many tables against few, long tables against short ones.

    python -m benchmarks.tables

A world of one on the CPU: forward, backward with the fused update, and the hand-over of the learning rate, for ids
drawn by Zipf(1.1). Between two steps the caches are emptied, as the dense part of a model would. Every case runs in a
process of its own, which reports its peak memory.
"""

# B rows, K tables and as many sparse keys, P sum of the widths

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

import recmoe  # noqa: F401  sets how OpenMP waits, before torch is loaded

# isort: split
import torch
from torch import Tensor, nn

from recmoe.embeddings.placement import PlacedModel, place
from recmoe.embeddings.tables import TablesConfig
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, SparseKey, TableSpec
from recmoe.training.runtime import start_runtime

WIDTH = 16
BATCH_SIZE = 4096
ZIPF_EXPONENT = 1.1
NUM_WARMUP = 10
NUM_STEPS = 40
LOG_ROWS = [round(float(rows)) for rows in np.geomspace(10, 1_000_000, 26)]
CASES = {
    "26 tables": LOG_ROWS,
    "260 tables": LOG_ROWS * 10,
    "8 tables of 10^5 rows": [10**5] * 8,
    "8 tables of 10^7 rows": [10**7] * 8,
}
FLUSH_BYTES = 128 << 20


@dataclass(frozen=True)
class Result:
    """What a case took."""

    case: str
    lookup_ms: float
    """Median of the forward passes."""
    update_ms: float
    """Median of the backward passes, the update included."""
    num_ids: int
    """Looked up per step."""
    memory_gb: float
    """Peak of the process."""
    tables_gb: float
    """Weights and optimizer state."""
    fill_s: float
    """To make, place and fill the tables."""

    @property
    def ns_per_id(self) -> float:
        return (self.lookup_ms + self.update_ms) * 1e6 / self.num_ids

    @property
    def memory_share(self) -> float:
        """Of 1.2 × tables and optimizer state + 1 GB."""
        return self.memory_gb / (1.2 * self.tables_gb + 1.0)


class Tables(nn.Module):
    """A model of tables alone."""

    def __init__(self, tables: nn.Module) -> None:
        super().__init__()
        self.tables = tables

    def forward(self, batch: Batch) -> Tensor:
        pooled_BP: Tensor = self.tables(batch)
        return pooled_BP


def layout_of(num_rows: Sequence[int]) -> InputLayout:
    """One sparse key per table."""
    names = [f"id_{number}" for number in range(len(num_rows))]
    return InputLayout(
        tables=tuple(TableSpec(name, rows, WIDTH, "sum", (name,)) for name, rows in zip(names, num_rows, strict=True)),
        sparse=tuple(SparseKey(name, name, "item", name, WIDTH) for name in names),
        dense=(),
    )


def zipf_batches(num_rows: Sequence[int], *, num_batches: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Batches with one id per row and key, drawn by Zipf and scattered over the table."""
    cumulative = {}
    for rows in sorted(set(num_rows)):
        weights = np.arange(1, rows + 1) ** -ZIPF_EXPONENT
        cumulative[rows] = np.cumsum(weights) / weights.sum()
    lengths_KB = torch.ones(len(num_rows), BATCH_SIZE, dtype=torch.int32)
    for _ in range(num_batches):
        values = []
        for rows in num_rows:
            rank_B = np.minimum(np.searchsorted(cumulative[rows], rng.random(BATCH_SIZE)), rows - 1)
            # One to one where the factor shares no divisor with the number of rows: it is a prime above them.
            values.append(rank_B * 1_000_000_007 % rows)
        ids = torch.from_numpy(np.concatenate(values))
        yield Batch(torch.zeros(BATCH_SIZE, 0), lengths_KB, ids, torch.zeros(BATCH_SIZE, 0))


def measure(case: str) -> Result:
    """Run one case in this process."""
    num_rows = CASES[case]
    runtime = start_runtime(device="cpu")
    # Drawn one by one, between the steps: all of them would take as much memory as some of the tables.
    batches = zipf_batches(num_rows, num_batches=NUM_WARMUP + NUM_STEPS, rng=np.random.default_rng(0))
    config = TablesConfig(backend="torchrec")
    started_s = time.perf_counter()
    placed = place(Tables(config.build(layout=layout_of(num_rows), seed=0)), config=config, device=runtime.device)
    fill_s = time.perf_counter() - started_s
    lookup_s, update_s = _step_all(placed, batches, num_keys=len(num_rows))
    state = [tensor for slots in placed.table_optimizer.state().values() for tensor in slots.values()]
    return Result(
        case=case,
        lookup_ms=1e3 * statistics.median(lookup_s[NUM_WARMUP:]),
        update_ms=1e3 * statistics.median(update_s[NUM_WARMUP:]),
        num_ids=BATCH_SIZE * len(num_rows),
        memory_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        tables_gb=4 * (sum(num_rows) * WIDTH + sum(tensor.size().numel() for tensor in state)) / 1e9,
        fill_s=fill_s,
    )


def _step_all(placed: PlacedModel, batches: Iterable[Batch], *, num_keys: int) -> tuple[list[float], list[float]]:
    """Seconds of every look-up and of every update."""
    gradient_BP = torch.randn(BATCH_SIZE, WIDTH * num_keys) * 1e-3
    flush = torch.zeros(FLUSH_BYTES, dtype=torch.uint8)
    lookup_s, update_s = [], []
    for step, batch in enumerate(batches):
        flush.fill_(step % 251)
        started_s = time.perf_counter()
        placed.table_optimizer.scale_lr(1.0 / (1 + step))
        pooled_BP = placed.model(batch)
        looked_up_s = time.perf_counter()
        pooled_BP.backward(gradient_BP)
        placed.table_optimizer.step()
        lookup_s.append(looked_up_s - started_s)
        update_s.append(time.perf_counter() - looked_up_s)
    return lookup_s, update_s


def run_in_own_process(case: str) -> Result:
    """The result of a case that no other case has left anything for."""
    command = [sys.executable, "-m", "benchmarks.tables", "--case", case]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Result(**json.loads(output.splitlines()[-1]))


def table_of(results: Sequence[Result]) -> str:
    """The results as Markdown."""
    lines = [
        "| | look-up ms | update ms | ns per id | peak GB | tables + state GB | of 1.2 × that + 1 GB | filled in s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {r.case} | {r.lookup_ms:.2f} | {r.update_ms:.2f} | {r.ns_per_id:.0f} | {r.memory_gb:.2f} | "
        f"{r.tables_gb:.2f} | {r.memory_share:.2f} | {r.fill_s:.1f} |"
        for r in results
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Look-up and update of embedding tables.")
    parser.add_argument("--case", choices=CASES, help="one case, in this process, as JSON")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(asdict(measure(arguments.case))), flush=True)
        return
    results = {case: run_in_own_process(case) for case in CASES}
    print(f"{os.cpu_count()} cores, batch {BATCH_SIZE}, width {WIDTH}, one id per row and table\n")
    print(table_of(list(results.values())))
    for few, many, limit in (
        ("26 tables", "260 tables", 1.3),
        ("8 tables of 10^5 rows", "8 tables of 10^7 rows", 2.0),
    ):
        ratio = results[many].ns_per_id / results[few].ns_per_id
        print(f"\n{many} against {few}: {ratio:.2f} × the time per id (wanted: at most {limit} ×)")


if __name__ == "__main__":
    main()
