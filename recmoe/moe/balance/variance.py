"""Variance of assignment: an expert's share shall differ from row to row.

Guo et al., NeurIPS 2025, https://arxiv.org/abs/2505.22323, the variance loss.
"""

# B rows, V experts visible to a gate

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from recmoe.moe.balance.statistics import gates_of, mean_of, over_workers, shares_of
from recmoe.moe.balance.term import BalanceLossKind, BalanceTerm
from recmoe.moe.gate_use import GateUse


class VarianceConfig(BalanceLossKind):
    """An expert's share shall differ from row to row, so that gates decide (Guo et al. 2025)."""

    kind: Literal["variance"] = "variance"

    def build(self, *, task_names: Sequence[str]) -> BalanceTerm:
        """The term; it does not know tasks."""
        del task_names
        return variance_loss


def variance_loss(uses: Sequence[GateUse]) -> Tensor:
    """Mean over gates of - (1 / V) · Σ_v mean_b (p[b, v] - mean_b' p[b', v])².

    The minus makes the variance large: 0 where all rows get the same shares, - (V - 1) / V² where every row has one
    expert and all experts have as many. The paper's sum over rows is a mean here, so that the weight does not depend
    on the size of a batch. p is the share that a gate would give were it not sparse; means are over the rows of all
    workers.
    """
    given = [shares_of(gate) for gate in gates_of(uses)]
    means = over_workers([p_BV.mean(dim=0) for p_BV in given])
    # Around the mean of all workers each worker's deviations are its share of the sum of squares.
    varied = over_workers([(p_BV - mean_V.detach()).square().mean() for p_BV, mean_V in zip(given, means, strict=True)])
    return mean_of([-variance for variance in varied])
