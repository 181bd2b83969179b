"""Switch: experts that many rows choose shall get smaller shares.

Fedus et al., JMLR 2022, https://arxiv.org/abs/2101.03961, equations 4-6.
"""

# B rows, V experts visible to a gate

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from recmoe.moe.balance.statistics import gates_of, mean_of, over_workers, shares_of
from recmoe.moe.balance.term import BalanceLossKind, BalanceTerm
from recmoe.moe.gate_use import GateUse


class SwitchBalanceConfig(BalanceLossKind):
    """Experts that many rows choose shall get smaller shares: Switch's auxiliary loss (Fedus et al. 2022)."""

    kind: Literal["switch"] = "switch"

    def build(self, *, task_names: Sequence[str]) -> BalanceTerm:
        """The term; it does not know tasks."""
        del task_names
        return switch_loss


def switch_loss(uses: Sequence[GateUse]) -> Tensor:
    """Mean over gates of V · Σ_v f_v · P_v: 1 where both are even, V where one expert gets everything.

    f_v is the part of the rows for which expert v has the largest share, before noise and before experts are full: as
    in equation 5, also where a gate chooses several or gives every expert a share. P_v is the mean share that the gate
    would give it were it not sparse. Only P has a gradient. Both are over the rows of all workers, which the paper
    leaves open.
    """
    given = [shares_of(gate) for gate in gates_of(uses)]
    means = over_workers([*map(_best, given), *(p_BV.mean(dim=0) for p_BV in given)])
    pairs = zip(means[: len(given)], means[len(given) :], strict=True)
    return mean_of([len(f_V) * (f_V * p_V).sum() for f_V, p_V in pairs])


def _best(p_BV: Tensor) -> Tensor:
    """f_V."""
    return torch.zeros_like(p_BV).scatter(1, p_BV.argmax(dim=1, keepdim=True), 1.0).mean(dim=0)
