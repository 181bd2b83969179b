"""Mutual information of tasks and experts: each task shall depend on few experts, and all experts shall be used.

Mod-Squad: Chen et al., CVPR 2023, https://arxiv.org/abs/2212.08066.
"""

# B rows, T tasks with a gate of their own, E experts, V experts visible to a gate

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from recmoe.moe.balance.statistics import entropy, over_workers, shares_of, visible
from recmoe.moe.balance.term import BalanceLossKind, BalanceTerm
from recmoe.moe.gate_use import GateUse


class MutualInformationConfig(BalanceLossKind):
    """Each task shall depend on few experts, and all experts shall be used (Mod-Squad, Chen et al. 2023)."""

    kind: Literal["mutual_information"] = "mutual_information"

    def build(self, *, task_names: Sequence[str]) -> BalanceTerm:
        """The term."""
        return MutualInformation(frozenset(task_names))


@dataclass(frozen=True)
class MutualInformation:
    """Minus the mutual information of tasks and experts, summed over levels, in nats::

        - Σ_t Σ_e P(t, e) · log(P(t, e) / (P(t) · P(e)))

    P(e | t) is the mean share that the gate of task t would give expert e were it not sparse, over the rows of all
    workers; every task is as likely as the others. It is 0 where all tasks use the experts alike, and - log T where no
    two tasks share one: what is minimised has a minus, for dependence is what the paper asks for. Gates that belong to
    no task, such as PLE's shared one, take no part, nor does a level with fewer than two gates of tasks.
    """

    task_names: frozenset[str]

    def __call__(self, uses: Sequence[GateUse]) -> Tensor:
        """The term; see ``BalanceTerm``."""
        levels = [[gate for gate, name in enumerate(use.gates) if name in self.task_names] for use in uses]
        used = [(use, gates) for use, gates in zip(uses, levels, strict=True) if len(gates) > 1 and use.by_gate]
        means = over_workers(
            [torch.cat([shares_of(use.by_gate[gate]).mean(dim=0) for gate in gates]) for use, gates in used]
        )
        total = torch.zeros((), device=uses[0].weights_BGE.device)
        for (use, gates), mean in zip(used, means, strict=True):
            visible_TE = visible(use)[gates]
            # One vector of the experts that the first gate sees, then those of the next, as the mask reads by rows.
            given_TE = mean.new_zeros(visible_TE.shape).masked_scatter(visible_TE, mean)
            total = total - _information(given_TE / len(gates))
        return total


def _information(joint_TE: Tensor) -> Tensor:
    """Of the rows and the columns of a joint distribution, in nats."""
    return entropy(joint_TE.sum(dim=0)) + entropy(joint_TE.sum(dim=1)) - entropy(joint_TE.flatten())
