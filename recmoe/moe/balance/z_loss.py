"""Router z-loss: logits of gates shall stay small, where a softmax is exact and its gradient alive.

ST-MoE: Zoph et al. 2022, https://arxiv.org/abs/2202.08906, equation 5.
"""

# B rows, V experts visible to a gate, L logits of a row: those of null experts, too

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from recmoe.moe.balance.statistics import all_logits, mean_of, single_gates_of
from recmoe.moe.balance.term import BalanceLossKind, BalanceTerm
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates.gate import Detail


class ZLossConfig(BalanceLossKind):
    """Logits of gates shall stay small (ST-MoE, Zoph et al. 2022)."""

    reads: ClassVar[frozenset[Detail]] = frozenset({"logits"})
    kind: Literal["z_loss"] = "z_loss"
    weight: NonNegativeFloat = 0.001
    """Factor of the term in the loss."""

    def build(self, *, task_names: Sequence[str]) -> BalanceTerm:
        """The term; it does not know tasks."""
        del task_names
        return z_loss


def z_loss(uses: Sequence[GateUse]) -> Tensor:
    """Mean over gates and rows of (log Σ_v exp(logit[b, v]))², over the experts that a gate sees, and null ones.

    A mean of what each row costs: every worker gives that of its own rows, as the losses of tasks do.
    """
    logits = (all_logits(gate) for gate in single_gates_of(uses))
    return mean_of([torch.logsumexp(z_BL, dim=1).square().mean() for z_BL in logits if z_BL is not None])
