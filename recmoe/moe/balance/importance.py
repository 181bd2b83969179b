"""Importance: the weights that a gate gives its experts over the rows shall be even.

Shazeer et al., ICLR 2017, https://arxiv.org/abs/1701.06538, equations 6-7.
"""

# B rows, G gates, E experts

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from recmoe.moe.balance.statistics import over_workers, relative, visible
from recmoe.moe.balance.term import BalanceLossKind, BalanceTerm
from recmoe.moe.gate_use import GateUse


class ImportanceConfig(BalanceLossKind):
    """The weights that a gate gives its experts over the rows shall be even (Shazeer et al. 2017)."""

    kind: Literal["importance"] = "importance"
    weight: NonNegativeFloat = 0.1
    """Factor of the term in the loss."""

    def build(self, *, task_names: Sequence[str]) -> BalanceTerm:
        """The term; it does not know tasks."""
        del task_names
        return importance_loss


def importance_loss(uses: Sequence[GateUse]) -> Tensor:
    """Mean over all gates of the squared coefficient of variation of their experts' importance.

    importance_e = Σ_b p[b, e];  loss = (standard deviation / mean)² over the experts a gate sees: 0 where all get
    the same, V - 1 where one of V gets everything. Σ_b is over the rows of all workers.
    """
    means = over_workers([use.weights_BGE.mean(dim=0) for use in uses])
    losses = []
    for use, mean_GE in zip(uses, means, strict=True):
        visible_GE = visible(use)
        relative_GE = relative(mean_GE, visible_GE, sums_to_one=use.sums_to_one)
        deviation_GE = torch.where(visible_GE, relative_GE - 1.0, 0.0)
        losses.append(deviation_GE.square().sum(dim=1) / visible_GE.sum(dim=1))
    return torch.cat(losses).mean()
