"""estimate(): seconds of a step, part by part, and what bounds it."""

from dataclasses import dataclass
from typing import Literal

from recmoe.planning.balance import RankLoads
from recmoe.planning.costs import Costs
from recmoe.planning.exchange import exchange
from recmoe.planning.topology import Topology
from recmoe.planning.work import Work

StepPart = Literal[
    "matrix products", "activations", "look-up", "update", "ids exchange", "vectors exchange", "gradients exchange",
    "rows exchange", "dense optimizer", "overhead",
]  # fmt: skip

BACKWARD_SHARE = 2 / 3
"""Of the time of matrix products and activations."""


@dataclass(frozen=True)
class StepEstimate:
    """What one step takes; parts that run beside others are counted as far as they stand out."""

    parts: dict[StepPart, float]
    """Seconds that each part adds to the step."""
    hidden: dict[StepPart, float]
    """Seconds that run beside other parts."""
    samples: int
    """Rows of a step, of all workers."""
    costs: Costs

    @property
    def step_s(self) -> float:
        """Seconds of a step."""
        return sum(self.parts.values())

    @property
    def samples_per_s(self) -> float:
        """Of the whole job."""
        return self.samples / self.step_s

    @property
    def bounds(self) -> list[tuple[StepPart, float]]:
        """Parts with their share of the step, the largest first; none below one percent."""
        shares = [(part, seconds / self.step_s) for part, seconds in self.parts.items()]
        return sorted((pair for pair in shares if pair[1] >= 0.01), key=lambda pair: -pair[1])


def estimate(work: Work, ranks: RankLoads, *, topology: Topology, costs: Costs, number_bytes: int = 4) -> StepEstimate:
    """Add up a step of the busiest worker.

    On a GPU the next batch's ids travel while this one computes, and the dense gradients are summed while the
    backward goes on; the exchange of vectors waits for the look-up and is waited for, and so are rows that travel to
    experts. On a CPU nothing overlaps.

    Args:
        number_bytes: of a number that travels to an expert.
    """
    lookup_R, update_R = ranks.table_s_R(costs)
    busiest = int((lookup_R + update_R).argmax())
    matrix_s = (work.counts.flops) / costs.matrix_flops_per_s
    activation_s = (
        work.counts.num_activations / costs.activations_per_s
        + work.counts.num_inputs / costs.inputs_per_s
        + work.counts.num_mixed / costs.mixed_per_s
        + work.counts.num_shares * costs.share_s
    )
    travel = exchange(
        ranks.loads,
        topology,
        num_dense_parameters=work.num_replicated_parameters,
        sent_bytes=work.sent_bytes(number_bytes),
    )
    parts: dict[StepPart, float] = {
        "matrix products": matrix_s,
        "activations": activation_s,
        "look-up": float(lookup_R[busiest]),
        "update": float(update_R[busiest]),
        "dense optimizer": work.optimizer_bytes / costs.optimizer_bytes_per_s,
        "overhead": costs.step_s + costs.product_s * work.counts.num_products,
        "vectors exchange": travel.vectors_s,
    }
    if travel.rows_s:
        parts["rows exchange"] = travel.rows_s
    hidden: dict[StepPart, float] = {}
    beside: dict[StepPart, tuple[float, float]] = {
        "ids exchange": (travel.ids_s, sum(parts.values()) - travel.vectors_s - travel.rows_s),
        "gradients exchange": (travel.gradients_s, BACKWARD_SHARE * (matrix_s + activation_s)),
    }
    for part, (seconds, room) in beside.items():
        overlap = min(seconds, room) if topology.device == "cuda" else 0.0
        parts[part], hidden[part] = seconds - overlap, overlap
    return StepEstimate(
        parts=parts,
        hidden={part: seconds for part, seconds in hidden.items() if seconds > 0},
        samples=work.batch_size * topology.world_size,
        costs=costs,
    )
