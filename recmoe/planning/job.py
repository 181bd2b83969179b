"""plan_job(): placement, bytes per worker, step time and warnings of a job on machines that need not exist."""

# R workers

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from recmoe.experiment import ExperimentConfig
from recmoe.features.layout import InputLayout
from recmoe.model import model_layout
from recmoe.planning.balance import Floats, RankLoads, balance_warnings
from recmoe.planning.costs import Costs
from recmoe.planning.estimate import StepEstimate, estimate
from recmoe.planning.loads import shard_loads
from recmoe.planning.placement import place_tables
from recmoe.planning.topology import GB, Topology
from recmoe.planning.work import Work, step_work

DENSE_FLOATS = 4
"""Per dense parameter: weight, gradient, and two moments of Adam."""
ID_BUFFERS = 4
"""Batches of ids in flight, before and after they travel."""
VOCABULARY_BYTES = 24
"""Of an id in a vocabulary and its index, its text of eight characters included; every worker holds it whole."""


@dataclass(frozen=True)
class JobPlan:
    """Where everything goes, and what follows from it."""

    topology: Topology
    backend: str
    layout: InputLayout
    work: Work
    ranks: RankLoads
    dense_bytes_R: Floats
    """Dense part of every worker, its own experts included: weights, gradients, moments."""
    sent_bytes: float
    """What a worker sends of rows and gradients to the experts of others, and back, in a step."""
    buffer_bytes_R: Floats
    """Activations, vectors and ids of a step, roughly."""
    estimate: StepEstimate | None
    """None where nothing is known of the device."""
    warnings: tuple[str, ...]
    assumptions: tuple[str, ...]

    @property
    def tables(self) -> list[dict[str, Any]]:
        """Per table: table, rows, width, sharding, ranks, bytes of weights, state_bytes."""
        loads = self.ranks.loads
        rows = []
        for spec in self.layout.tables:
            pieces = [load for load in loads if load.shard.table == spec.name]
            ranks = sorted({load.shard.rank for load in pieces})
            copies = len(ranks) if pieces[0].shard.sharding == "data_parallel" else 1
            rows.append(
                {
                    "table": spec.name,
                    "rows": spec.num_rows,
                    "width": spec.width,
                    "sharding": pieces[0].shard.sharding,
                    "ranks": ranks,
                    "bytes": spec.num_rows * spec.width * 4,
                    "state_bytes": int(sum(load.state_bytes for load in pieces)) // copies,
                    "largest_share_of_ids": max(load.num_ids for load in pieces) / sum(load.num_ids for load in pieces)
                    if copies == 1 and any(load.num_ids for load in pieces)
                    else 1.0 / len(pieces),
                }
            )
        return rows

    @property
    def num_bytes(self) -> int:
        """Weights of all tables; optimizer state comes on top."""
        return sum(row["bytes"] for row in self.tables)

    @property
    def bytes_by_kind(self) -> dict[str, Floats]:
        """What a worker's memory holds, [R] each."""
        return {
            "table weights": self.ranks.weight_bytes_R,
            "optimizer state": self.ranks.state_bytes_R,
            "dense part": self.dense_bytes_R,
            "buffers": self.buffer_bytes_R,
        }

    @property
    def bytes_R(self) -> Floats:
        """All of it."""
        total_R: Floats = np.sum(list(self.bytes_by_kind.values()), axis=0)
        return total_R

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        made: dict[str, Any] = {
            "device": self.topology.device,
            "backend": self.backend,
            "topology": self.topology.model_dump(mode="json"),
            "tables": self.tables,
            "num_bytes": self.num_bytes,
            "num_dense_parameters": self.work.num_dense_parameters,
            "num_expert_parameters": list(self.work.counts.num_expert_parameters),
            "sent_bytes": self.sent_bytes,
            "bytes_per_rank": {
                kind: {"mean": float(values_R.mean()), "max": float(values_R.max())}
                for kind, values_R in (*self.bytes_by_kind.items(), ("total", self.bytes_R))
            },
            "limit_bytes": self.topology.memory_gb * GB,
            "flops_per_rank": self.work.flops,
            "step": None,
            "warnings": list(self.warnings),
            "assumptions": list(self.assumptions),
        }
        if self.estimate is not None:
            made["step"] = {
                "seconds": self.estimate.step_s,
                "samples_per_s": self.estimate.samples_per_s,
                "parts": self.estimate.parts,
                "hidden": self.estimate.hidden,
                "costs": self.estimate.costs.model_dump(mode="json"),
            }
        return made


def plan_job(
    config: ExperimentConfig,
    layout: InputLayout,
    *,
    topology: Topology,
    costs: Costs | None,
    precision: Literal["fp32", "bf16"],
    ids_per_row: Mapping[str, float],
    frequent_first: Collection[str],
    zipf: float,
) -> JobPlan:
    """Plan a job.

    Args:
        costs: of the device; without them there is no step time.
        ids_per_row: by sparse key.
        frequent_first: tables whose rows stand in the order of their frequency.
        zipf: exponent of the popularity of ids.

    Raises:
        ConfigError: experts that cannot be divided among the workers, where they should be.
        ShardingError: a placement that the device cannot do, or tables that do not fit, with what would help.
    """
    work = _work(config, layout, topology, ids_per_row, zipf)
    layout = model_layout(layout, tasks=config.task_set(), config=config.model)
    shards = place_tables(
        layout, config=config.tables, topology=topology, batch_size=work.batch_size, ids_per_row=ids_per_row
    )
    loads = shard_loads(
        shards,
        work={table.table: table for table in work.tables},
        num_rows={spec.name: spec.num_rows for spec in layout.tables},
        world_size=topology.world_size,
        frequent_first=frequent_first,
        zipf=zipf,
    )
    ranks = RankLoads(loads, topology.world_size)
    number_bytes = 2 if precision == "bf16" else 4
    found = None if costs is None else estimate(work, ranks, topology=topology, costs=costs, number_bytes=number_bytes)
    step_s, memory_bytes = found.step_s if found else None, topology.memory_gb * GB
    warnings = balance_warnings(ranks, memory_bytes=memory_bytes, costs=costs, step_s=step_s)
    return JobPlan(
        topology=topology,
        backend=config.tables.resolved_backend(),
        layout=layout,
        work=work,
        ranks=ranks,
        dense_bytes_R=4.0 * DENSE_FLOATS * _dense_parameters(work, topology.world_size),
        sent_bytes=work.sent_bytes(number_bytes),
        buffer_bytes_R=_buffer_bytes(work, ranks, number_bytes),
        estimate=found,
        warnings=(*warnings, *_memory_warnings(layout, topology, frequent_first)),
        assumptions=tuple(_assumptions(topology, ids_per_row, zipf, costs)),
    )


def _work(
    config: ExperimentConfig, layout: InputLayout, topology: Topology, ids_per_row: Mapping[str, float], zipf: float
) -> Work:
    return step_work(
        layout,
        tasks=config.task_set(),
        model=config.model,
        optimizer=config.tables.optimizer,
        batch_size=config.training.batch_size,
        ids_per_row=ids_per_row,
        zipf=zipf,
        expert_workers=topology.world_size if config.training.experts == "over_workers" else None,
    )


def _dense_parameters(work: Work, num_workers: int) -> Floats:
    """Of everything but the tables, by rank."""
    experts_R = np.array(work.counts.num_expert_parameters or (0,) * num_workers, dtype=np.float64)
    return work.num_replicated_parameters + experts_R


def _buffer_bytes(work: Work, ranks: RankLoads, number_bytes: int) -> Floats:
    """What a step holds beside weights, by rank; activations and vectors have gradients."""
    held_R: Floats = (
        2 * number_bytes * work.counts.num_activations + 2 * ranks.vector_bytes_R + ID_BUFFERS * ranks.id_bytes_R
    )
    return held_R


def _memory_warnings(layout: InputLayout, topology: Topology, frequent_first: Collection[str]) -> list[str]:
    """Vocabularies that no host can hold in every worker."""
    host_gb = topology.host_memory_gb or topology.memory_gb * topology.devices_per_node
    found = []
    for spec in layout.tables:
        needed_gb = spec.num_rows * VOCABULARY_BYTES * topology.devices_per_node / GB
        if spec.name in frequent_first and needed_gb > 0.25 * host_gb:
            found.append(
                f"vocabulary: {spec.num_rows:,} ids of {spec.name} take about {needed_gb:,.0f} GB of a node's "
                f"{host_gb:,.0f} GB, a copy per worker; hash them (encoding.kind: hash)"
            )
    return found


def _assumptions(
    topology: Topology, ids_per_row: Mapping[str, float], zipf: float, costs: Costs | None
) -> Sequence[str]:
    lists = [f"{key} {count:g}" for key, count in ids_per_row.items() if count != 1.0]
    told = [
        f"ids: one per row and feature{' (' + ', '.join(lists) + ')' if lists else ''}, popular as Zipf({zipf:g})",
    ]
    if costs is not None:
        told.append(f"device: {costs.source}")
    if topology.world_size > 1:
        told.append(
            f"links: {topology.efficiency.network:.0%} of {topology.intra_node_gb_per_s:g} GB/s inside a node and of "
            f"{topology.inter_node_gb_per_s:g} GB/s between nodes, per device and direction"
        )
        told.append(
            "overlap: the next batch's ids travel, and dense gradients are summed, beside the computation; "
            "vectors are waited for"
            if topology.device == "cuda"
            else "overlap: none"
        )
    return told
