"""Null experts: all experts shall be chosen alike, and null ones as often as others in the mean over them.

AdaMoE: Zeng et al., EMNLP Findings 2024, https://arxiv.org/abs/2406.13233, load balancing with null experts.
"""

# B rows, V experts visible to a gate, M null experts, L = V + M

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from recmoe.moe.balance.statistics import all_logits, mean_of, over_workers, single_gates_of
from recmoe.moe.balance.term import BalanceLossKind, BalanceTerm
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates.gate import Detail


class NullExpertsBalanceConfig(BalanceLossKind):
    """Experts shall be chosen alike, and null ones as often as others in the mean over them (AdaMoE, Zeng 2024)."""

    reads: ClassVar[frozenset[Detail]] = frozenset({"logits", "nulls"})
    kind: Literal["null_experts"] = "null_experts"

    def build(self, *, task_names: Sequence[str]) -> BalanceTerm:
        """The term; it does not know tasks."""
        del task_names
        return null_experts_loss


def null_experts_loss(uses: Sequence[GateUse]) -> Tensor:
    """Mean over gates of (V + M) · Σ_i f_i · P_i, over experts and null experts: k where both are even.

    f_i is the part of the rows that choose i; for every null expert it is the mean over the null ones, which are all
    the same and need no balance among them. P_i is the mean of softmax(logits)_i over experts and null experts. Only P
    has a gradient. Both are over the rows of all workers.
    """
    chosen, shares = [], []
    for gate in single_gates_of(uses):
        logits_BL = all_logits(gate)
        if logits_BL is None or gate.nulls is None:
            continue
        of_nulls_BM = gate.nulls.is_chosen_BM.float().mean(dim=1, keepdim=True).expand_as(gate.nulls.is_chosen_BM)
        chosen.append(torch.cat([(gate.weights_BV > 0).float(), of_nulls_BM], dim=1).mean(dim=0))
        shares.append(torch.softmax(logits_BL, dim=1).mean(dim=0))
    means = over_workers([*chosen, *shares])
    pairs = zip(means[: len(chosen)], means[len(chosen) :], strict=True)
    return mean_of([len(f_L) * (f_L * p_L).sum() for f_L, p_L in pairs])
