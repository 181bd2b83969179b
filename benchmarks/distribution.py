"""The cost of distribution: one process on all cores against several that share them.

    python -m benchmarks.distribution

MMoE with 8 experts [256, 128] over 26 tables of 10 … 1,000,000 rows × 16 and 13 numbers; batches are ready in memory.
Every process has a batch of 4096 rows, so that N processes step N × 4096 rows at once, each on its share of the cores.
The figure is the rows per second of all processes together: the cores are the same, so what is lost is what the
exchange of ids, vectors and gradients costs.
"""

# B rows, F dense columns, K sparse keys, L label columns

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from benchmarks.tables import LOG_ROWS, WIDTH, layout_of, zipf_batches
from recmoe.embeddings.logical import dense_parameters
from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import TablesConfig
from recmoe.features.batch import Batch
from recmoe.features.layout import DenseColumn, InputLayout
from recmoe.model import ModelConfig, build_training_model
from recmoe.products import autocast, fast_products, resolve_precision
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.training.clipping import make_clipping
from recmoe.training.loop import TrainingConfig
from recmoe.training.runtime import Runtime, start_runtime
from recmoe.training.step import Stepper, Update, make_stepper

NUM_FLOATS = 13
NUM_WARMUP = 5
NUM_STEPS = 30
TASKS = {
    "click": {"kind": "binary", "label": "click"},
    "conversion": {"kind": "binary", "label": "conversion"},
}
MODEL = {
    "architecture": {"kind": "mmoe", "num_experts": 8, "expert_hidden": [256, 128]},
    "towers": {"hidden": [64]},
    "wide": {"kind": "none"},
}


def layout() -> InputLayout:
    """The tables' keys, and plain numbers."""
    tables = layout_of(LOG_ROWS)
    names = [f"x_{number}" for number in range(NUM_FLOATS)]
    return InputLayout(tables.tables, tables.sparse, tuple(DenseColumn(name, name, "item", "value") for name in names))


def ready_batches(*, num_batches: int, rank: int) -> list[Batch]:
    """A rank's batches, with numbers and labels drawn at random."""
    rng = np.random.default_rng(rank)
    batches = []
    for ids in zipf_batches(LOG_ROWS, num_batches=num_batches, rng=rng):
        rows = ids.lengths_KB.shape[1]
        dense_BF = torch.from_numpy(rng.standard_normal((rows, NUM_FLOATS), dtype=np.float32))
        labels_BL = torch.from_numpy((rng.random((rows, len(TASKS))) < 0.1).astype(np.float32))
        batches.append(Batch(dense_BF, ids.lengths_KB, ids.values, labels_BL))
    return batches


def stepper_of(runtime: Runtime, config: TrainingConfig) -> Stepper:
    """The model and its steps, as a training job makes them."""
    tables = TablesConfig(backend="torchrec")
    tasks = TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(TASKS))
    model = build_training_model(
        layout=layout(),
        tasks=tasks,
        config=ModelConfig.model_validate(MODEL),
        tables=lambda rows: tables.build(layout=rows, seed=0),
    )
    placed = place(model, config=tables, device=runtime.device)
    precision = resolve_precision(config.precision, runtime.device)

    def losses(batch: Batch) -> tuple[Tensor, Tensor]:
        with autocast(precision, runtime.device):
            return placed.model(batch)  # type: ignore[no-any-return]

    optimizer = config.dense_optimizer.build(parameter for _, parameter in dense_parameters(placed.model))
    update = Update(
        dense_optimizer=optimizer,
        table_optimizer=placed.table_optimizer,
        lr=config.dense_optimizer.lr,
        schedule=config.schedule,
        clipping=make_clipping(config.clip_norm, model=placed.model, optimizer=optimizer),
    )
    return make_stepper(
        placed.model,
        losses=losses,
        prepare=lambda batch, _: batch,
        update=update,
        pipelining=config.pipeline,
        device=runtime.device,
    )


def measure(config: TrainingConfig) -> list[float]:
    """Seconds of every step of this process."""
    runtime = start_runtime(device="cpu")
    batches = iter(ready_batches(num_batches=NUM_WARMUP + NUM_STEPS, rank=runtime.rank))
    stepper = stepper_of(runtime, config)
    seconds = []
    for step in range(NUM_WARMUP + NUM_STEPS):
        started_s = time.perf_counter()
        with fast_products(runtime.device):
            stepper.step(batches, step=step, num_steps=NUM_WARMUP + NUM_STEPS)
        seconds.append(time.perf_counter() - started_s)
    return seconds[NUM_WARMUP:]


def step_s(num_processes: int, precision: str) -> float:
    """Median of the steps of the first process; with peers, all steps end together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.distribution", "--precision", precision, "--worker"]
    world = {"WORLD_SIZE": str(num_processes), "LOCAL_WORLD_SIZE": str(num_processes)}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(command, env={**os.environ, **world, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(num_processes)
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("a process failed; its error is above")
    times: list[float] = json.loads(outputs[0].splitlines()[-1])
    return statistics.median(times)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The cost of distribution.")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--precision", choices=["fp32", "bf16", "auto"], default="auto")
    parser.add_argument("--worker", action="store_true", help="be one of the processes; print the steps' seconds")
    given = parser.parse_args(arguments)
    config = TrainingConfig.model_validate({"precision": given.precision})
    if given.worker:
        print(json.dumps(measure(config)), flush=True)
        return
    batch_size = config.batch_size
    print(f"{os.cpu_count()} cores, {batch_size} rows per process and step, width {WIDTH}, {given.precision}\n")
    print("| processes | step ms | rows/s, all together | of the first |\n|--:|--:|--:|--:|")
    first = 0.0
    for num_processes in given.processes:
        seconds = step_s(num_processes, given.precision)
        rows_per_s = num_processes * batch_size / seconds
        first = first or rows_per_s
        print(f"| {num_processes} | {1e3 * seconds:.1f} | {rows_per_s:,.0f} | {rows_per_s / first:.2f} |", flush=True)


if __name__ == "__main__":
    main()
