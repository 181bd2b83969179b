"""RankLoads: bytes and look-ups of every worker, and warnings where one has far more than the others."""

# R workers

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recmoe.planning.costs import Costs
from recmoe.planning.loads import ShardLoad

Floats = NDArray[np.float64]

MUCH_MORE = 1.25
"""Times the mean at which a worker has too much, where it matters."""
MATTERS = 0.02
"""Share of a device's memory, or of a step, below which no imbalance is worth a word."""


@dataclass(frozen=True)
class RankLoads:
    """What the tables ask of each worker."""

    loads: Sequence[ShardLoad]
    num_ranks: int

    @cached_property
    def weight_bytes_R(self) -> Floats:
        """Weights of tables."""
        return self._sum(lambda load: load.weight_bytes)

    @cached_property
    def state_bytes_R(self) -> Floats:
        """Optimizer state of tables."""
        return self._sum(lambda load: load.state_bytes)

    @cached_property
    def vector_bytes_R(self) -> Floats:
        """Pooled vectors of a step."""
        return self._sum(lambda load: load.vector_bytes)

    @cached_property
    def id_bytes_R(self) -> Floats:
        """Ids of a step."""
        return self._sum(lambda load: load.id_bytes)

    def table_s_R(self, costs: Costs) -> tuple[Floats, Floats]:
        """Seconds of look-up, and of update."""
        lookup = self._sum(lambda load: lookup_s(load, costs))
        return lookup, self._sum(lambda load: update_s(load, costs))

    def largest_on(self, rank: int, size: Callable[[ShardLoad], float]) -> str:
        """The table that has most of something on a worker."""
        return max((load for load in self.loads if load.shard.rank == rank), key=size).shard.table

    def _sum(self, size: Callable[[ShardLoad], float]) -> Floats:
        sums_R = np.zeros(self.num_ranks)
        for load in self.loads:
            sums_R[load.shard.rank] += size(load)
        return sums_R


def lookup_s(load: ShardLoad, costs: Costs) -> float:
    """Seconds that a piece takes in the forward pass; half of what goes by table and id belongs to each pass."""
    return load.lookup_bytes / costs.row_bytes_per_s + 0.5 * (costs.table_s + load.num_ids * costs.id_s)


def update_s(load: ShardLoad, costs: Costs) -> float:
    """Seconds that a piece takes in the backward pass."""
    return load.update_bytes / costs.row_bytes_per_s + 0.5 * (costs.table_s + load.num_ids * costs.id_s)


def max_over_mean(values_R: Floats) -> float:
    """1 where all have the same."""
    mean = float(values_R.mean())
    return float(values_R.max()) / mean if mean > 0 else 1.0


def balance_warnings(ranks: RankLoads, *, memory_bytes: float, costs: Costs | None, step_s: float | None) -> list[str]:
    """Where one worker holds, or looks up, far more than the others, and through which table."""
    found = []
    bytes_R = ranks.weight_bytes_R + ranks.state_bytes_R
    ratio = max_over_mean(bytes_R)
    if ratio > MUCH_MORE and float(bytes_R.max()) > MATTERS * memory_bytes:
        rank = int(bytes_R.argmax())
        table = ranks.largest_on(rank, lambda load: load.weight_bytes + load.state_bytes)
        found.append(
            f"memory: worker {rank} holds {ratio:.1f} times the mean, most of it of {table}; split that table "
            f"(tables.sharding.{table}), or use fewer workers"
        )
    if costs is None or step_s is None:
        return found
    lookup_R, update_R = ranks.table_s_R(costs)
    seconds_R = lookup_R + update_R
    ratio = max_over_mean(seconds_R)
    if ratio > MUCH_MORE and float(seconds_R.max() - seconds_R.mean()) > MATTERS * step_s:
        rank = int(seconds_R.argmax())
        busiest = max(
            (load for load in ranks.loads if load.shard.rank == rank),
            key=lambda load: lookup_s(load, costs) + update_s(load, costs),
        )
        all_ids = sum(load.num_ids for load in ranks.loads if load.shard.table == busiest.shard.table)
        share = busiest.num_ids / all_ids if all_ids else 0.0
        found.append(
            f"look-ups: worker {rank} needs {ratio:.1f} times the mean time, most of it for {busiest.shard.table}, of "
            f"whose ids it gets {share:.0%}; {_remedy(busiest)}"
        )
    return found


def _remedy(busiest: ShardLoad) -> str:
    if busiest.shard.sharding in ("row_wise", "table_row_wise", "grid_shard"):
        return "a vocabulary keeps frequent ids together: hash them (encoding.kind: hash), or cut columns"
    return f"split that table (tables.sharding.{busiest.shard.table}), or give it a narrower width"
