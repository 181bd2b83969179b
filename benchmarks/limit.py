"""What the machine could do at most: its measured rates, and what one step of each model asks of them."""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.peers.job import Job
from benchmarks.recmoe_runner import experiment
from recmoe.features.encoder import FeatureEncoder
from recmoe.planning.rates import Rates, measure_rates
from recmoe.planning.work import step_work

RATES = ("fp32_flops_per_s", "fp32_fast_flops_per_s", "bf16_flops_per_s", "copy_bytes_per_s", "random_row_bytes_per_s")
LIMITS = {"fp32": ("fp32_flops_per_s", "fp32_fast_flops_per_s"), "bf16": ("bf16_flops_per_s",)}
"""The matrix rates of which the best sets the limit of each precision; float32 has two libraries."""
LAYOUT_ROWS = 20_000
"""Rows from which the layout of the inputs is learnt; ids are row numbers, so any will do."""


def measured_rates(device: str) -> dict[str, Any]:
    """Rates of this machine now, as JSON."""
    return measure_rates(torch.device(device)).model_dump()


def best_rates(measured: list[dict[str, Any]]) -> Rates:
    """The best of several measurements, figure by figure: what else ran can only have slowed it down."""
    best = {name: max(rates[name] for rates in measured) for name in RATES}
    return Rates(device=measured[-1]["device"], **best)


def work_of(job: Job) -> dict[str, float]:
    """Operations and bytes of one training step of recmoe's model."""
    config = experiment(job)
    rows = next(pq.ParquetFile(Path(job.path("test"))).iter_batches(LAYOUT_ROWS))
    tasks = config.task_set()
    layout = FeatureEncoder.fit(config.inputs, [pa.Table.from_batches([rows])], tasks.label_columns).layout
    work = step_work(
        layout, tasks=tasks, model=config.model, optimizer=config.tables.optimizer, batch_size=job.batch_size
    )
    return {
        "batch_size": float(work.batch_size),
        "flops": work.flops,
        "lookup_bytes": work.lookup_bytes,
        "update_bytes": work.update_bytes,
        "optimizer_bytes": work.optimizer_bytes,
        "num_dense_parameters": float(work.num_dense_parameters),
    }


def limit_samples_per_s(work: dict[str, float], rates: Rates, precision: str) -> float:
    """Samples per second if the matrix products ran at the measured rate, and nothing else took any time."""
    rate: float = max(getattr(rates, name) for name in LIMITS[precision])
    return work["batch_size"] * rate / work["flops"]


if __name__ == "__main__":
    print(json.dumps(measured_rates(sys.argv[1])))
