"""Load: the number of rows that choose an expert shall be even, by an estimator that has a gradient.

Shazeer et al., ICLR 2017, https://arxiv.org/abs/1701.06538, appendix A, equations 8-11.
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


class LoadConfig(BalanceLossKind):
    """The number of rows that choose an expert shall be even, for gates with noise (Shazeer et al. 2017)."""

    reads: ClassVar[frozenset[Detail]] = frozenset({"load"})
    kind: Literal["load"] = "load"
    weight: NonNegativeFloat = 0.1
    """Factor of the term in the loss."""

    def build(self, *, task_names: Sequence[str]) -> BalanceTerm:
        """The term; it does not know tasks."""
        del task_names
        return load_loss


def load_loss(uses: Sequence[GateUse]) -> Tensor:
    """Mean over gates of the squared coefficient of variation of their experts' load.

    load_v = Σ_b P[b, v], where P is the probability that row b would choose expert v if the noise of that expert alone
    were drawn again. Σ_b is over the rows of all workers.
    """
    means = over_workers([gate.load().mean(dim=0) for gate in single_gates_of(uses) if gate.load is not None])
    return mean_of([mean_V.var(correction=0) / mean_V.mean().square() for mean_V in means])
