"""ExpertUsage: how the gates of a level used its experts."""

# B rows, G gates, E experts

from dataclasses import dataclass

from torch import Tensor

from recmoe.moe.balance.statistics import visible
from recmoe.moe.gate_use import GateUse


@dataclass(frozen=True)
class ExpertUsage:
    """The mean weight that each gate of a level gave each expert, over some rows.

    Example: two tasks with one expert each and one shared expert; cvr leaves its own expert alone::

                 ctr.0  cvr.0  shared.0
            ctr    .40      0       .60
            cvr      0    .01       .99
    """

    level: int
    gates: tuple[str, ...]
    experts: tuple[str, ...]
    usage_GE: Tensor
    """float64 on the CPU; rows sum to one where the weights of the gate do."""
    visible_GE: Tensor
    """bool, which experts each gate sees."""
    num_rows: int

    def merge(self, other: "ExpertUsage") -> "ExpertUsage":
        """The usage over the rows of both."""
        assert (self.level, self.gates, self.experts) == (other.level, other.gates, other.experts), "not the same level"
        num_rows = self.num_rows + other.num_rows
        usage_GE = (self.usage_GE * self.num_rows + other.usage_GE * other.num_rows) / num_rows
        return ExpertUsage(
            level=self.level,
            gates=self.gates,
            experts=self.experts,
            usage_GE=usage_GE,
            visible_GE=self.visible_GE,
            num_rows=num_rows,
        )


def expert_usage(use: GateUse) -> ExpertUsage:
    """The mean of the gate weights over the rows of a batch."""
    weights_BGE = use.weights_BGE.detach()
    return ExpertUsage(
        level=use.level,
        gates=use.gates,
        experts=use.experts,
        usage_GE=weights_BGE.mean(dim=0).double().cpu(),
        visible_GE=visible(use).cpu(),
        num_rows=weights_BGE.shape[0],
    )
