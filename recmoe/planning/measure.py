"""measure_machine(): what steps of this machine cost, from small steps that each stress one part."""

# N measured steps, C costs

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from recmoe.embeddings.tables import TablesConfig
from recmoe.features.layout import InputLayout, SparseKey, TableSpec
from recmoe.model import ModelConfig
from recmoe.planning.costs import Costs, MachineCosts
from recmoe.planning.rates import Rates, measure_rates
from recmoe.planning.ready_steps import ReadySteps
from recmoe.planning.work import Work, step_work
from recmoe.products import has_fast_bf16
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.training.loop import TrainingConfig
from recmoe.training.runtime import Runtime, start_runtime

Floats = NDArray[np.float64]

LARGEST_TABLE = 500_000
"""Rows; the others are smaller, as in a log: some rows come from a cache and some do not."""


@dataclass(frozen=True)
class Probe:
    """A step that stresses one part."""

    stresses: str
    architecture: Mapping[str, Any]
    num_tables: int = 2
    width: int = 16
    batch_size: int = 4096
    ids_per_row: float = 1.0
    towers: Sequence[int] = field(default=(8,))

    @property
    def layout(self) -> InputLayout:
        """Tables of 10 to many rows, log-spaced, a key each."""
        rows = np.geomspace(LARGEST_TABLE, 10, self.num_tables).round().astype(int).tolist()
        return InputLayout(
            tables=tuple(TableSpec(f"t{i}", num, self.width, "sum", (f"k{i}",)) for i, num in enumerate(rows)),
            sparse=tuple(SparseKey(f"k{i}", f"k{i}", "item", f"t{i}", self.width) for i in range(len(rows))),
            dense=(),
        )

    @property
    def ids_by_key(self) -> dict[str, float]:
        """Ids per row."""
        return {f"k{i}": self.ids_per_row for i in range(self.num_tables)}

    @property
    def model(self) -> ModelConfig:
        """The sections of a config."""
        return ModelConfig.model_validate({"architecture": self.architecture, "towers": {"hidden": self.towers}})


def _bottom(*hidden: int) -> dict[str, Any]:
    return {"kind": "shared_bottom", "hidden": hidden}


def _experts(num: int, *hidden: int) -> dict[str, Any]:
    return {"kind": "mmoe", "num_experts": num, "expert_hidden": hidden}


PROBES = (
    Probe("nothing", _bottom(8), batch_size=1024),
    Probe("small", _bottom(96, 48), num_tables=16, batch_size=512, towers=(24,)),
    Probe("products", _bottom(*[64] * 12), batch_size=1024, towers=(64, 64, 64, 64)),
    Probe("products", _experts(24, 64), num_tables=4, batch_size=1024),
    Probe("products", _bottom(*[128] * 12), num_tables=4, batch_size=1024),
    Probe("matrix", _bottom(1024, 512), num_tables=8),
    Probe("matrix", _experts(4, 512, 256), num_tables=16),
    Probe("matrix", _experts(6, 192, 96), num_tables=12, batch_size=2048),
    Probe("activations", _experts(12, 64, 64), num_tables=4),
    Probe("activations", _experts(24, 32), num_tables=4),
    Probe("activations", _bottom(256, 256, 256, 256), num_tables=4),
    Probe("inputs", _experts(10, 16), num_tables=64, batch_size=2048),
    Probe("inputs", _experts(5, 96), num_tables=40, width=32),
    Probe("mixing", _experts(40, 32), num_tables=4, batch_size=2048),
    Probe("mixing", {"kind": "ple", "num_task_experts": 5, "num_shared_experts": 3, "expert_hidden": (48,)}),
    Probe("tables", _bottom(8), num_tables=64),
    Probe("tables", _bottom(8), num_tables=96, batch_size=256),
    Probe("ids", _bottom(8), num_tables=8, ids_per_row=16),
    Probe("rows", _bottom(8), num_tables=8, width=128),
    Probe("optimizer", _bottom(2048, 2048), batch_size=64),
)
"""None of them is a config that the estimate is checked on."""


def measure_machine(device: Literal["auto", "cpu", "cuda"] = "auto", *, min_s: float = 0.6) -> MachineCosts:
    """Measure limits and costs; the machine should have nothing else to do.

    Args:
        min_s: how long each probe is repeated; the faster steps count.
    """
    runtime = start_runtime(device=device)
    rates = measure_rates(runtime.device)
    return MachineCosts(
        rates=rates,
        fp32=measure_costs("fp32", runtime, rates=rates, min_s=min_s),
        bf16=measure_costs("bf16", runtime, rates=rates, min_s=min_s) if has_fast_bf16(runtime.device) else None,
    )


def measure_costs(precision: Literal["fp32", "bf16"], runtime: Runtime, *, rates: Rates, min_s: float) -> Costs:
    """Step every probe, and find the costs that explain the times."""
    works, seconds = [], []
    for probe in PROBES:
        works.append(_work(probe))
        seconds.append(_measured_s(probe, precision, runtime, min_s))
    source = f"measured with {len(PROBES)} small steps, {precision}"
    return fit_costs(works, seconds, peak_flops_per_s=rates.step_flops_per_s(precision), source=source)


AMOUNTS: dict[str, Callable[[Work], float]] = {
    "matrix_flops_per_s": lambda work: work.counts.flops,
    "activations_per_s": lambda work: work.counts.num_activations,
    "inputs_per_s": lambda work: work.counts.num_inputs,
    "mixed_per_s": lambda work: work.counts.num_mixed,
    "share_s": lambda work: work.counts.num_shares,
    "product_s": lambda work: work.counts.num_products,
    "row_bytes_per_s": lambda work: work.lookup_bytes + work.update_bytes,
    "id_s": lambda work: sum(table.num_ids for table in work.tables),
    "table_s": lambda work: len(work.tables),
    "optimizer_bytes_per_s": lambda work: work.optimizer_bytes,
    "step_s": lambda work: 1.0,  # noqa: ARG005
}
"""By field of ``Costs``, how much of it a step has."""

TINY = 1e-18
"""Seconds, the least: a part that takes no time of its own has no rate, and a very high one says the same."""


def fit_costs(
    works: Sequence[Work], seconds: Sequence[float], *, peak_flops_per_s: float = math.inf, source: str = "measured"
) -> Costs:
    """Costs that are nowhere negative, with the least squares of the relative errors.

    t = Σ over costs of amount · seconds, or amount / rate

    Args:
        peak_flops_per_s: matrix products are not found faster than that, at the expense of what comes with them.
    """
    amounts_NC = np.array([[amount(work) for amount in AMOUNTS.values()] for work in works], dtype=np.float64)
    seconds_N = np.array(seconds, dtype=np.float64)
    least_C = np.array([1.0 / peak_flops_per_s if name == "matrix_flops_per_s" else TINY for name in AMOUNTS])
    shares_NC = amounts_NC / seconds_N[:, None]
    found_C = (least_C + _least_squares(shares_NC, 1.0 - shares_NC @ least_C)).tolist()
    values = {
        name: 1.0 / found if name.endswith("_per_s") else found for name, found in zip(AMOUNTS, found_C, strict=True)
    }
    return Costs(source=source, **values)


def _least_squares(matrix_NC: Floats, values_N: Floats, *, num_rounds: int = 20_000) -> Floats:
    """x ≥ 0 with the least |A·x - b|², by coordinate descent on columns of length one."""
    lengths_C = np.maximum(np.linalg.norm(matrix_NC, axis=0), 1e-300)
    scaled_NC = matrix_NC / lengths_C
    gram_CC, target_C = scaled_NC.T @ scaled_NC, scaled_NC.T @ values_N
    found_C = np.zeros(len(target_C))
    for _ in range(num_rounds):
        for column in range(len(found_C)):
            step = target_C[column] - gram_CC[column] @ found_C
            found_C[column] = max(0.0, found_C[column] + step)
    solution_C: Floats = found_C / lengths_C
    return solution_C


def _tasks() -> TaskSet:
    task = TypeAdapter[TaskConfig](TaskConfig)
    return TaskSet({name: task.validate_python({"kind": "binary", "label": name}) for name in ("click", "buy")})


def _work(probe: Probe) -> Work:
    return step_work(
        probe.layout,
        tasks=_tasks(),
        model=probe.model,
        optimizer=TablesConfig().optimizer,
        batch_size=probe.batch_size,
        ids_per_row=probe.ids_by_key,
    )


def _measured_s(probe: Probe, precision: Literal["fp32", "bf16"], runtime: Runtime, min_s: float) -> float:
    # The weights of a probe are nobody else's.
    with torch.random.fork_rng(devices=[]):
        return ReadySteps(
            layout=probe.layout,
            tasks=_tasks(),
            model=probe.model,
            training=TrainingConfig(batch_size=probe.batch_size),
            precision=precision,
            runtime=runtime,
            ids_per_row=probe.ids_by_key,
        ).step_s(min_s=min_s)
