"""All gates: what the gates of a level together give each expert shall be even.

SMES: Zhang et al. 2026, https://arxiv.org/abs/2602.09386, the load-balancing regularizer over all gates.
"""

# B rows, G gates, E experts

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from recmoe.moe.balance.statistics import SMALLEST_SHARE, mean_of, over_workers, visible
from recmoe.moe.balance.term import BalanceLossKind, BalanceTerm
from recmoe.moe.gate_use import GateUse


class AllGatesConfig(BalanceLossKind):
    """What the gates of a level together give each expert shall be even; each by itself may specialise (SMES)."""

    kind: Literal["all_gates"] = "all_gates"

    def build(self, *, task_names: Sequence[str]) -> BalanceTerm:
        """The term; it does not know tasks."""
        del task_names
        return all_gates_loss


def all_gates_loss(uses: Sequence[GateUse]) -> Tensor:
    """Mean over levels of the mean over experts of (given_e / even_e - 1)²::

        given_e = Σ_g Σ_b p_g[b, e],      even_e = what it would be if every gate gave all that it sees the same

    The idea is the paper's: one term on what all tasks give an expert, where a term per gate would forbid tasks to
    prefer experts. The form is that of importance (squared coefficient of variation), which it equals for one gate;
    even_e makes it hold where gates see different experts. Σ_b is over the rows of all workers.
    """
    means = over_workers([use.weights_BGE.mean(dim=0) for use in uses])
    losses = []
    for use, mean_GE in zip(uses, means, strict=True):
        visible_GE = visible(use).to(mean_GE.dtype)
        even_GE = visible_GE / visible_GE.sum(dim=1, keepdim=True) * mean_GE.sum(dim=1, keepdim=True)
        given_E, even_E = mean_GE.sum(dim=0), even_GE.sum(dim=0)
        # An expert that no gate sees, such as of a task without one at the last level, cannot be given anything.
        is_seen_E = visible_GE.any(dim=0)
        relative_E = given_E / even_E.clamp(min=SMALLEST_SHARE)
        losses.append(((relative_E - 1.0).square() * is_seen_E).sum() / is_seen_E.sum())
    return mean_of(losses)
