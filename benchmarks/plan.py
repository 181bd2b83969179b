"""What `recmoe plan` expects of a step against what the step takes, for five configs on this machine.

    python -m benchmarks.plan [--rates FILE] [--precision bf16]

The costs come from ``recmoe plan --measure``, whose small steps are none of these; without a file of them the machine
is measured first. Steps are real ones, a world of one, on batches that are ready.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

import recmoe  # noqa: F401  sets how OpenMP waits, before torch is loaded

# isort: split
from recmoe.config import config_from_dict
from recmoe.experiment import ExperimentConfig
from recmoe.planning.costs import MachineCosts
from recmoe.planning.job import JobPlan
from recmoe.planning.measure import measure_machine
from recmoe.planning.ready_steps import ReadySteps
from recmoe.planning.rows import ids_per_row
from recmoe.runs.plan import plan_run, this_machine
from recmoe.training.runtime import Runtime, start_runtime

IDS_PER_LIST = 20


def features(num_ids: int, num_numbers: int, *, num_lists: int = 0, num_vectors: int = 0) -> dict[str, Any]:
    """Ids with 10 to 1,000,000 values, log-spaced, lists of them, plain numbers and learnt vectors of numbers."""
    rows = np.geomspace(10, 1_000_000, num_ids).round().astype(int).tolist()
    made: dict[str, Any] = {
        f"id_{i}": {"kind": "id", "encoding": {"kind": "index", "num_ids": num}} for i, num in enumerate(rows)
    }
    list_ = {"kind": "id_list", "encoding": {"kind": "index", "num_ids": 100_000}, "pooling": "mean"}
    made |= {f"list_{i}": list_ for i in range(num_lists)}
    made |= {f"number_{i}": {"kind": "numeric"} for i in range(num_numbers)}
    made |= {f"vector_{i}": {"kind": "numeric", "forms": ["vector"]} for i in range(num_vectors)}
    return made


MMOE = {"kind": "mmoe", "num_experts": 8, "expert_hidden": [256, 128]}
PLE = {"kind": "ple", "num_levels": 2, "num_task_experts": 2, "num_shared_experts": 2, "expert_hidden": [256, 128]}
CASES: dict[str, dict[str, Any]] = {
    "small shared-bottom": {
        "inputs": {"width": 8, "features": features(12, 5)},
        "model": {"architecture": {"kind": "shared_bottom", "hidden": [128, 64]}, "towers": {"hidden": [32]}},
        "training": {"batch_size": 1024},
    },
    "MMoE 8 × [256, 128]": {
        "inputs": {"width": 16, "features": features(26, 13)},
        "model": {"architecture": MMOE},
        "training": {"batch_size": 4096},
    },
    "PLE, 2 levels of 6 × [256, 128]": {
        "inputs": {"width": 16, "features": features(26, 13)},
        "model": {"architecture": PLE},
        "training": {"batch_size": 4096},
    },
    "wide MMoE 16 × [512, 256]": {
        "inputs": {"width": 32, "features": features(16, 13)},
        "model": {"architecture": {"kind": "mmoe", "num_experts": 16, "expert_hidden": [512, 256]}},
        "training": {"batch_size": 8192},
    },
    "120 tables, lists, CGC 6 × [64]": {
        "inputs": {"width": 16, "features": features(110, 10, num_lists=10, num_vectors=5)},
        "model": {
            "architecture": {"kind": "cgc", "num_task_experts": 2, "num_shared_experts": 2, "expert_hidden": [64]}
        },
        "training": {"batch_size": 2048},
    },
}


@dataclass(frozen=True)
class Result:
    """One config."""

    case: str
    precision: str
    predicted_ms: float
    measured_ms: float
    bound_by: str

    @property
    def ratio(self) -> float:
        return self.predicted_ms / self.measured_ms


def experiment(case: Mapping[str, Any], precision: str) -> ExperimentConfig:
    """A config of two tasks; nothing is read, for index encodings say how many rows there are."""
    training = {**case["training"], "precision": precision, "device": "cpu"}
    tasks = {name: {"kind": "binary", "label": name} for name in ("click", "buy")}
    values = {"name": "case", "data": {"train": "none.parquet"}, "tasks": tasks, **case, "training": training}
    return config_from_dict(ExperimentConfig, values)


def predict(config: ExperimentConfig, measured: MachineCosts) -> JobPlan:
    """The plan of one worker on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        return plan_run(
            config,
            topology=this_machine("cpu", num_workers=1),
            cache_dir=Path(folder),
            given_ids_per_row=_lists(config),
            measured=measured,
        )


def measure_s(
    config: ExperimentConfig, plan: JobPlan, *, precision: Literal["fp32", "bf16"], runtime: Runtime, min_s: float
) -> float:
    """Seconds of a real step: the lower quartile."""
    return ReadySteps(
        layout=plan.layout,
        tasks=config.task_set(),
        model=config.model,
        training=config.training,
        precision=precision,
        runtime=runtime,
        tables=config.tables,
        ids_per_row=ids_per_row(config.inputs, _lists(config)),
    ).step_s(min_s=min_s)


def _lists(config: ExperimentConfig) -> dict[str, float]:
    return {name: IDS_PER_LIST for name, feature in config.inputs.features.items() if feature.kind == "id_list"}


def table_of(results: Sequence[Result]) -> str:
    """The results as Markdown."""
    lines = ["| | precision | predicted ms | measured ms | ratio | bound by |", "|---|---|--:|--:|--:|---|"]
    lines += [
        f"| {r.case} | {r.precision} | {r.predicted_ms:.1f} | {r.measured_ms:.1f} | {r.ratio:.2f} | {r.bound_by} |"
        for r in results
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Predicted against measured step time.")
    parser.add_argument("--rates", type=Path, help="file of `recmoe plan --measure`; measured now by default")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="both by default")
    parser.add_argument("--seconds", type=float, default=1.0, help="of steps per config")
    parser.add_argument("--json", type=Path, help="file for the results")
    arguments = parser.parse_args()
    runtime = start_runtime(device="cpu")
    measured = MachineCosts.load(arguments.rates) if arguments.rates else measure_machine("cpu")
    precisions: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16") if measured.bf16 else ("fp32",)
    results = []
    for precision in precisions if arguments.precision is None else (arguments.precision,):
        for name, case in CASES.items():
            config = experiment(case, precision)
            plan = predict(config, measured)
            assert plan.estimate is not None
            seconds = measure_s(config, plan, precision=precision, runtime=runtime, min_s=arguments.seconds)
            bounds = ", ".join(f"{part} {share:.0%}" for part, share in plan.estimate.bounds[:3])
            results.append(Result(name, precision, plan.estimate.step_s * 1e3, seconds * 1e3, bounds))
    print(f"{measured.rates.device}, one worker, ready batches\n")
    print(table_of(results))
    worst = max(results, key=lambda result: max(result.ratio, 1 / result.ratio))
    print(f"\nworst: {worst.case}, {worst.precision}, {worst.ratio:.2f} (wanted: within 30 %)")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
