"""Stable: experts with more rows than the mean shall get smaller weights, those with fewer larger ones.

StableMoE: Dai et al., ACL 2022, https://arxiv.org/abs/2204.08396, the balance loss of stage 1, read by the authors'
code, https://github.com/Hunter-DDM/stablemoe, moe_layer.py.
"""

# B rows, V experts visible to a gate

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import NonNegativeFloat
from torch import Tensor

from recmoe.moe.balance.statistics import mean_of, over_workers, single_gates_of
from recmoe.moe.balance.term import BalanceLossKind, BalanceTerm
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates.gate import Detail


class StableBalanceConfig(BalanceLossKind):
    """Experts with more rows than the mean shall get smaller weights, while a stable gate learns (Dai et al. 2022)."""

    reads: ClassVar[frozenset[Detail]] = frozenset({"second router"})
    kind: Literal["stable"] = "stable"
    weight: NonNegativeFloat = 0.3
    """Factor of the term in the loss; that of the authors."""

    def build(self, *, task_names: Sequence[str]) -> BalanceTerm:
        """The term; it does not know tasks."""
        del task_names
        return stable_loss


def stable_loss(uses: Sequence[GateUse]) -> Tensor:
    """Mean over gates of Σ_v (n_v - n) / n · (1 / B) · Σ_b p[b, v], in stage 1; 0 in stage 2, where choices stay.

    n_v is the number of rows that choose expert v, and n = B / V their mean. p is σ of the affinity where a row chose
    v, and 0 elsewhere. Only p has a gradient. Both sums are over the rows of all workers. The paper's sum over rows is
    a mean here, as the losses of tasks are; ``importance`` differs from it, for it does not know how many rows there
    are behind the weights.
    """
    gates = [(gate.weights_BV, gate.distilled.learns) for gate in single_gates_of(uses) if gate.distilled is not None]
    means = over_workers(
        [
            *((p_BV > 0).to(p_BV.dtype).mean(dim=0) for p_BV, _ in gates),
            *(p_BV.mean(dim=0) for p_BV, _ in gates),
        ]
    )
    pairs = zip(gates, means[: len(gates)], means[len(gates) :], strict=True)
    return mean_of([learns * ((len(f_V) * f_V - 1.0) * p_V).sum() for (_, learns), f_V, p_V in pairs])
