"""plan_run(): where every table goes and what a step takes, before any worker is started or any machine rented."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from recmoe.errors import DataError, SchemaError
from recmoe.experiment import ExperimentConfig
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import InputLayout
from recmoe.machine import Machine
from recmoe.planning.costs import Costs, MachineCosts, assumed_costs
from recmoe.planning.job import JobPlan, plan_job
from recmoe.planning.rows import frequent_first, ids_per_row, planned_layout, tables_without_rows, with_rows
from recmoe.planning.topology import GB, Topology
from recmoe.products import has_fast_bf16
from recmoe.runs.encoder import learn_encoder
from recmoe.runs.folder import RunFolder

LOOPBACK_GB_PER_S = 2.0
"""What one process sends to another of this machine through gloo, roughly."""


def plan_run(
    config: ExperimentConfig,
    *,
    topology: Topology,
    cache_dir: Path,
    rows: Mapping[str, int] | None = None,
    given_ids_per_row: Mapping[str, float] | None = None,
    run_dir: Path | None = None,
    measured: MachineCosts | None = None,
    zipf: float = 1.1,
) -> JobPlan:
    """Plan a run from row counts, or from the vocabularies of a run or of the training split.

    Args:
        topology: machines; they need not exist.
        cache_dir: where CSV files are converted, unless the config says otherwise.
        rows: by table, different ids.
        given_ids_per_row: by id_list feature.
        run_dir: a run whose encoder knows the vocabularies.
        measured: costs of this machine, used where the topology gives no rates.
        zipf: exponent of the popularity of ids.

    Raises:
        DataError, SchemaError: vocabularies are needed and the training split cannot be read.
        ShardingError: a placement that the device cannot do, or tables that do not fit.
    """
    precision = _precision(config, topology, measured)
    return plan_job(
        config,
        _layout(config, rows or {}, run_dir, cache_dir),
        topology=topology,
        costs=_costs(topology, measured, precision),
        precision=precision,
        ids_per_row=ids_per_row(config.inputs, given_ids_per_row or {}),
        frequent_first=frequent_first(config.inputs),
        zipf=zipf,
    )


def this_machine(device: Literal["auto", "cpu", "cuda"], *, num_workers: int) -> Topology:
    """The computer this runs on, shared by some workers."""
    machine = Machine.read(Path.cwd())
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        memory = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 80e9
        return Topology(
            devices_per_node=num_workers,
            device="cuda",
            memory_gb=memory / GB,
            host_memory_gb=machine.usable_memory_bytes / GB,
        )
    return Topology(
        devices_per_node=num_workers,
        device="cpu",
        memory_gb=machine.usable_memory_bytes / GB / num_workers,
        intra_node_gb_per_s=LOOPBACK_GB_PER_S,
    )


def _layout(config: ExperimentConfig, rows: Mapping[str, int], run_dir: Path | None, cache_dir: Path) -> InputLayout:
    unknown = tables_without_rows(config.inputs, rows)
    if not unknown:
        return planned_layout(config.inputs, rows)
    if run_dir is not None:
        return with_rows(FeatureEncoder.load(RunFolder(run_dir).encoder).layout, rows)
    try:
        stream = config.data.build("train", seed=config.seed, cache_dir=cache_dir)
        encoder = learn_encoder(config, stream, scratch=cache_dir / "scratch")
    except (DataError, SchemaError) as error:
        wanted = " ".join(f"--rows {name}=1e6" for name in unknown)
        raise type(error)(f"{error}; without a log, say how many different ids there are, such as {wanted}") from error
    return with_rows(encoder.layout, rows)


def _precision(config: ExperimentConfig, topology: Topology, measured: MachineCosts | None) -> Literal["fp32", "bf16"]:
    """What ``auto`` means there: every GPU that is worth planning for multiplies bf16 in hardware."""
    asked = config.training.precision
    if asked != "auto":
        return asked
    if topology.device == "cuda":
        return "bf16"
    if topology.known_rates is None and measured is not None:
        return "bf16" if measured.bf16 is not None else "fp32"
    return "bf16" if has_fast_bf16(torch.device("cpu")) else "fp32"


def _costs(topology: Topology, measured: MachineCosts | None, precision: Literal["fp32", "bf16"]) -> Costs | None:
    rates = topology.known_rates
    if rates is not None:
        return assumed_costs(rates, topology.efficiency, precision)
    if measured is None:
        return None
    found = measured.bf16 if precision == "bf16" else measured.fp32
    # Workers on a CPU share its cores.
    return found if found is None or topology.device == "cuda" else found.shared_by(topology.devices_per_node)
