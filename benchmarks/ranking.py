"""Ranking: from the bytes of a request to those of its answer, beside an older checkout and beside the arithmetic.

    git worktree add ../older a155ca0
    .venv/bin/python -m benchmarks.ranking --older ../older

One user and 1, 200 or 2,000 candidates, 26 ids (13 of the user, 13 of the candidate) and 13 numbers: all in the
request, or of the candidates their ids alone and the rest in a store of items, without and with products that are kept;
MMoE of the sizes of the training benchmark. Checkouts, precisions and stores take turns in processes of their own, so
that ratios are of the same minutes. An older checkout trains and exports the model itself, and all rank that bundle:
this version reads bundles of earlier ones, which do not read those of this one. The limit is the matrix products alone,
at the rate that the machine reaches.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.log import FLOAT_COLUMNS, ID_COLUMNS, NUM_IDS, write_log
from recmoe.export.bundle import ModelBundle
from recmoe.products import has_fast_bf16
from recmoe.ranking.items import ArrowStore

HERE = Path(__file__).parent
NUM_CANDIDATES = (1, 200, 2000)
NUM_ROWS = 60_000
WIDTHS = (256, 128)
NUM_EXPERTS = 8
ITEM = ID_COLUMNS[-1]
NUM_ITEMS = 20_000
KNOWN_BYTES = 2**30
"""Room for the products of all of them."""


@dataclass
class Contestant:
    """A checkout in a precision, ready to rank."""

    name: str
    process: subprocess.Popen[str]
    has_items: bool = False
    """Whether requests hold ids alone."""
    times_ms: dict[str, list[float]] = field(default_factory=dict)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def rank(self, request: Path, *, times: int) -> None:
        """Rank a request some times; where there is a store of items, the one with ids alone beside it."""
        file = ids_alone(request) if self.has_items else request
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{file} {times}\n")
        self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        self.times_ms.setdefault(request.stem, []).extend(found["times_ms"])
        self.answers[request.stem] = found["answer"]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--older", type=Path, help="another checkout to measure beside this one")
    parser.add_argument("--to", type=Path, default=HERE / ".cache" / "ranking", help="(%(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="of torch in every process; 0 for its own number")
    parser.add_argument("--rounds", type=int, default=10, help="(%(default)s)")
    arguments = parser.parse_args()
    bundle = bundle_in(arguments.to, arguments.older)
    items, store = items_in(arguments.to, bundle)
    requests = [request_in(arguments.to, items, num) for num in NUM_CANDIDATES]
    checkouts = [("older fp32", arguments.older, ["--precision", "fp32"])] if arguments.older else []
    for precision in ("fp32", "bf16") if has_fast_bf16(torch.device("cpu")) else ("fp32",):
        options = ["--precision", precision]
        with_items = [*options, "--items", str(store)]
        checkouts.append((precision, HERE.parent, options))
        checkouts.append((f"{precision}, ids alone", HERE.parent, with_items))
        checkouts.append((f"{precision}, products kept", HERE.parent, [*with_items, "--known-bytes", str(KNOWN_BYTES)]))
    with ExitStack() as stack:
        contestants = [
            stack.enter_context(started(name, root, bundle, options, threads=arguments.threads))
            for name, root, options in checkouts
        ]
        for _ in range(arguments.rounds):
            for request, num in zip(requests, NUM_CANDIDATES, strict=True):
                for contestant in contestants:
                    contestant.rank(request, times=5 if num > 1000 else 30)
        print_table(contestants, requests)
        compare_scores(contestants, requests)
    print_limits(arguments.threads)


def bundle_in(folder: Path, older: Path | None = None) -> Path:
    """A bundle of the benchmark's MMoE, trained for a few steps; made where it is not there.

    Args:
        older: the checkout whose code makes it; by default this one.
    """
    root = older or HERE.parent
    run = folder / ("run" if older is None else f"run-{commit_of(older)}")
    if not (run / "bundle" / "manifest.json").exists():
        write_log(folder / "log", num_rows=NUM_ROWS)
        sides = [f"inputs.features.{name}.side={_side(place)}" for place, name in enumerate(ID_COLUMNS)]
        data = [f'data.train=["{folder / "log" / "train.parquet"}"]', "data.validation=[]", "data.test=[]"]
        options = [*data, *sides, f"inputs.item={ITEM}", "--run-dir", str(run), "--no-resume"]
        config = root / HERE.name / "configs" / "mmoe.yaml"
        # -P: else the folder that this was started in would come before the checkout.
        command = [sys.executable, "-P", "-c", "from recmoe.cli import main; main()", "train", str(config), *options]
        subprocess.run(command, env=environment(root), check=True)
    return run / "bundle"


def commit_of(root: Path) -> str:
    """What a checkout holds."""
    command = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise SystemExit(f"{root} is no checkout: {found.stderr.strip()}")
    return found.stdout.strip()


def environment(root: Path) -> dict[str, str]:
    """Of a process with the code of a checkout."""
    return {**os.environ, "PYTHONPATH": str(root.resolve())}


def items_in(folder: Path, bundle: Path) -> tuple[pa.Table, Path]:
    """A row for each of some items, and a store of them."""
    random = np.random.default_rng(0)
    ids = list(zip(ID_COLUMNS, NUM_IDS, strict=True))
    columns: dict[str, Any] = {
        name: random.integers(0, num, NUM_ITEMS) for place, (name, num) in enumerate(ids) if _side(place) == "item"
    }
    columns[ITEM] = random.choice(dict(ids)[ITEM], NUM_ITEMS, replace=False)
    columns |= {name: random.normal(size=NUM_ITEMS).round(6) for name in FLOAT_COLUMNS}
    items = pa.table(columns)
    ArrowStore.build(folder / "items", items, ModelBundle.load(bundle).encoder)
    return items, folder / "items"


def request_in(folder: Path, items: pa.Table, num_candidates: int) -> Path:
    """A request by columns, with every feature in it; and one with the ids of candidates alone."""
    random = np.random.default_rng(num_candidates)
    ids = list(zip(ID_COLUMNS, NUM_IDS, strict=True))
    user = {name: int(random.integers(num)) for place, (name, num) in enumerate(ids) if _side(place) == "user"}
    candidates = items.take(pa.array(random.choice(NUM_ITEMS, num_candidates, replace=False))).to_pydict()
    path = folder / f"{num_candidates}.json"
    path.write_text(json.dumps({"user": user, "candidates": candidates}), encoding="utf-8")
    few = {"user": user, "candidates": {ITEM: candidates[ITEM]}}
    ids_alone(path).write_text(json.dumps(few), encoding="utf-8")
    return path


def ids_alone(request: Path) -> Path:
    """The file of the same request without the columns of candidates."""
    return request.with_suffix(".ids.json")


def _side(place: int) -> str:
    return "item" if place % 2 else "user"


@contextmanager
def started(name: str, root: Path, bundle: Path, options: Sequence[str], *, threads: int) -> Iterator[Contestant]:
    """A process that ranks with the code of a checkout; ended at the end."""
    command = [sys.executable, str(HERE / "ranking_worker.py"), str(bundle), *options]
    process = subprocess.Popen(
        [*command, "--threads", str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(root),
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{name}: the ranker of {root} did not start; its messages are above")
        yield Contestant(name, process, has_items="--items" in options)
    finally:
        process.kill()
        process.wait()


def print_table(contestants: Sequence[Contestant], requests: Sequence[Path]) -> None:
    """Milliseconds, and the share of the first contestant's."""
    print("| candidates | " + " | ".join(f"{one.name}: median / p99 ms" for one in contestants) + " | to the first |")
    print("|--:|" + "--:|" * (len(contestants) + 1))
    for request in requests:
        times = [np.array(one.times_ms[request.stem]) for one in contestants]
        cells = [f"{np.median(of_one):.2f} / {np.percentile(of_one, 99):.2f}" for of_one in times]
        ratios = [f"{np.median(times[0]) / np.median(of_one):.2f} ×" for of_one in times[1:]]
        print(f"| {request.stem} | " + " | ".join(cells) + f" | {', '.join(ratios)} |")
    for one in contestants:
        stages = one.answers["200"]["timing_ms"]
        print(f"{one.name}, last of 200 candidates, ms by stage: {stages}")


def compare_scores(contestants: Sequence[Contestant], requests: Sequence[Path]) -> None:
    """The largest difference between predictions of the first contestant and the others."""
    for one in contestants[1:]:
        largest = 0.0
        for request in requests:
            before, now = (
                {item["item_id"]: item["tasks"] for item in of.answers[request.stem]["items"]}
                for of in (contestants[0], one)
            )
            pairs = [(now[item][task], before[item][task]) for item in before for task in before[item]]
            largest = max(largest, *(abs(found - expected) for found, expected in pairs))
        print(f"{one.name}: predictions differ from those of {contestants[0].name} by at most {largest:.1e}")


def print_limits(threads: int) -> None:
    """The matrix products of 200 candidates alone, at the rate that one product of their size reaches."""
    if threads:
        torch.set_num_threads(threads)
    own_width, num = len(NUM_IDS) // 2 * 16 + len(FLOAT_COLUMNS) * 5, 200
    flops = 2 * num * NUM_EXPERTS * (own_width * WIDTHS[0] + WIDTHS[0] * WIDTHS[1])
    for dtype in (torch.float32, torch.bfloat16):
        x, weight = torch.randn(num, own_width).to(dtype), torch.randn(NUM_EXPERTS * WIDTHS[0], own_width).to(dtype)
        times_s = []
        with torch.inference_mode():
            for _ in range(200):
                start_s = time.perf_counter()
                torch.nn.functional.linear(x, weight)
                times_s.append(time.perf_counter() - start_s)
        rate = 2 * num * weight.numel() / min(times_s)
        print(f"{dtype}: {rate / 1e9:.0f} GFLOP/s, {flops / 1e6:.0f} MFLOP in {flops / rate * 1000:.2f} ms")


if __name__ == "__main__":
    main()
