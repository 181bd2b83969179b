"""What a sparse gate saves: top-2 of 16 experts next to a dense gate over the same 16, in one run.

python -m benchmarks.sparse_gates --rounds 3

Once with one gate for both tasks (OMoE), where a row is computed by an eighth of the experts, and once with a gate per
task (MMoE), whose choices differ, so that it is up to a quarter. Experts of 512 × 256, batches of 4096 rows of the
training benchmark's log. Training goes through recmoe's own loop on batches that lie ready; ranking is one request of
4096 candidates to the bundle of that model, which serves in fp32. The gates take turns, each measurement in a process
of its own, and ratios are of medians. At the end the experts of a row are counted over both tasks of a trained SMES,
whose tasks choose together, next to its bound and to what tasks that choose by themselves would use; ``--rounds 0``
counts alone.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.log import FLOAT_COLUMNS, ID_COLUMNS, LABELS, NUM_IDS, TRUTH, write_log
from benchmarks.options import CACHE
from benchmarks.peers.job import Job
from benchmarks.recmoe_runner import experiment, ready_samples_per_s
from benchmarks.training import BEST_WAITING, WAITING
from recmoe.cli.output import print_columns
from recmoe.conformance.work import active_experts
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.gate_use import GateUse
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import RankRequest
from recmoe.runs.train import train_run

KINDS = {"omoe": "one gate", "mmoe": "a gate per task"}
GATES = {"dense": "{kind: softmax}", "top-2 of 16": "{kind: top_k, k: 2}"}
PRECISIONS = ("fp32", "bf16")
NUM_CANDIDATES = 4096
NUM_WARM, NUM_TIMED = 3, 10
"""Requests, of which only the later ones are timed."""


def main() -> None:
    """Measure in turns; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=15, help="training steps of a measurement (default 15)")
    parser.add_argument("--log", type=Path, default=CACHE / "log", help="of the training benchmark; made where missing")
    parser.add_argument("--rows", type=int, default=2_000_000, help="of the log, where it is made")
    parser.add_argument("--to", type=Path, default=CACHE / "sparse_gates")
    parser.add_argument("--one", nargs=3, metavar=("KIND", "GATE", "WHAT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, gate, what = options.one
        is_ranking = what == "rank"
        measured = rank_ms(options, kind, gate) if is_ranking else train_samples_per_s(options, kind, gate, what)
        print(json.dumps(measured))
        return
    if not (options.log / TRUTH).exists():
        write_log(options.log, num_rows=options.rows, seed=0)
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number, what, kind in product(range(options.rounds), (*PRECISIONS, "rank"), KINDS):
        for gate in list(GATES) if number % 2 == 0 else reversed(GATES):
            measured = _measure(kind, gate, what, options)
            for name, value in measured.items():
                values[f"{KINDS[kind]}: {name}", gate].append(value)
            print(f"[{number + 1}/{options.rounds}] {KINDS[kind]}, {gate}: {measured}", flush=True)
    if values:
        _print(values)
    print_columns(["SMES: experts of a row", "what was counted"], count_experts(options))


def train_samples_per_s(options: argparse.Namespace, kind: str, gate: str, precision: str) -> dict[str, float]:
    """Rows per second of the training loop on ready batches."""
    job = _job(options, precision)
    return {f"train {precision}, samples/s": ready_samples_per_s(job, *_overrides(kind, gate))}


def rank_ms(options: argparse.Namespace, kind: str, gate: str) -> dict[str, float]:
    """Milliseconds of a request, and those of them in the model, which serves in fp32."""
    job = _job(options, "fp32")
    folder = Path(job.cache) / f"{kind}-{gate.replace(' ', '-')}.run"
    if not (folder / "bundle").exists():
        few = ["training.max_steps=2", "data.validation=[]", "data.test=[]", f'data.train=["{job.path("test")}"]']
        limits = [f"ranking.max_candidates={NUM_CANDIDATES}"]
        train_run(experiment(job, *_overrides(kind, gate), *few, *limits), folder, resume=False, is_quiet=True)
    ranker = Ranker.load(folder / "bundle")
    request = RankRequest.model_validate({"candidates": _candidates(job)})
    timings = [ranker.rank(request).timing_ms for _ in range(NUM_WARM + NUM_TIMED)][NUM_WARM:]
    return {
        "rank, ms in the model": median(timing["model"] for timing in timings),
        "rank, ms in all": median(timing["total"] for timing in timings),
    }


def count_experts(options: argparse.Namespace) -> list[list[str]]:
    """Of rows of the log, as they train and as candidates of a request."""
    job = _job(options, "fp32")
    folder = Path(job.cache) / "smes.run"
    if not (folder / "bundle").exists():
        sizes = [f"model.architecture.{size}" for size in ("kind=smes", "num_experts=16", "expert_hidden=[512, 256]")]
        splits = ["data.validation=[]", "data.test=[]", f'data.train=["{job.path("test")}"]']
        config = experiment(job, *sizes, *splits, f"training.max_steps={options.steps}", "training.epochs=1000")
        train_run(config, folder, resume=False, is_quiet=True)
    ranker = Ranker.load(folder / "bundle")
    model, found = ranker.bundle.model, []
    [layer] = [module for module in model.modules() if isinstance(module, ExpertLayer)]
    rows = next(pq.ParquetFile(job.path("train")).iter_batches(job.batch_size))
    batch = ranker.bundle.encoder.encode(pa.Table.from_batches([rows]), with_labels=False)
    for name, is_training in {"training": True, "ranking": False}.items():
        uses: list[GateUse] = []
        hook = layer.register_forward_hook(lambda _layer, _inputs, outputs, uses=uses: uses.append(outputs[1]))
        model.train(is_training)
        if is_training:
            model(batch)
        else:
            ranker.rank(RankRequest.model_validate({"candidates": _candidates(job)[:1000]}))
        hook.remove()
        found.append([name, active_experts(uses[0]).sentence(layer.num_pairs)])
    return found


def _candidates(job: Job) -> list[dict[str, Any]]:
    rows = next(pq.ParquetFile(job.path("test")).iter_batches(NUM_CANDIDATES))
    return pa.Table.from_batches([rows]).drop_columns(list(LABELS)).to_pylist()  # type: ignore[no-any-return]


def _overrides(kind: str, gate: str) -> list[str]:
    return [
        f"model.architecture.kind={kind}",
        "model.architecture.num_experts=16",
        "model.architecture.expert_hidden=[512, 256]",
        f"model.architecture.gate={GATES[gate]}",
    ]


def _job(options: argparse.Namespace, precision: str) -> Job:
    options.to.mkdir(parents=True, exist_ok=True)
    return Job(
        log=str(options.log.resolve()),
        num_ids=dict(zip(ID_COLUMNS, NUM_IDS, strict=True)),
        floats=FLOAT_COLUMNS,
        labels=LABELS,
        model="mmoe",
        precision=precision,
        result="",
        cache=str(options.to.resolve()),
        num_ready_steps=options.steps,
    )


def _measure(kind: str, gate: str, what: str, options: argparse.Namespace) -> dict[str, float]:
    inherited = {name: value for name, value in os.environ.items() if name not in WAITING}
    command = [sys.executable, "-m", "benchmarks.sparse_gates", "--one", kind, gate, what]
    rest = ["--steps", str(options.steps), "--log", str(options.log), "--to", str(options.to)]
    run = subprocess.run([*command, *rest], env=inherited | BEST_WAITING, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(run.stdout.strip().splitlines()[-1])
    return result


def _print(values: dict[tuple[str, str], list[float]]) -> None:
    rows = []
    for name in dict.fromkeys(name for name, _ in values):
        dense, sparse = (median(values[name, gate]) for gate in GATES)
        times = sparse / dense if name.endswith("samples/s") else dense / sparse
        rows.append([name, f"{dense:,.0f}", f"{sparse:,.0f}", f"{times:.1f} times"])
    print_columns(["", *GATES, "faster"], rows)


if __name__ == "__main__":
    main()
