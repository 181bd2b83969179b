"""Entropy: every row shall be decided, and the rows together shall use all experts.

LIMoE: Mustafa et al., NeurIPS 2022, https://arxiv.org/abs/2206.02770, its local and global entropy losses.
"""

# B rows, V experts visible to a gate

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import NonNegativeFloat
from torch import Tensor

from recmoe.moe.balance.statistics import entropy, gates_of, mean_of, over_workers, shares_of
from recmoe.moe.balance.term import BalanceLossKind, BalanceTerm
from recmoe.moe.gate_use import GateUse


class EntropyConfig(BalanceLossKind):
    """Every row shall be decided, and the rows together shall use all experts (LIMoE, Mustafa et al. 2022)."""

    kind: Literal["entropy"] = "entropy"
    row: NonNegativeFloat = 1.0
    """Factor of the entropy of each row, which is made small."""
    batch: NonNegativeFloat = 1.0
    """Factor of the entropy of all rows together, which is made large."""

    def build(self, *, task_names: Sequence[str]) -> BalanceTerm:
        """The term; it does not know tasks."""
        del task_names
        return EntropyLoss(row=self.row, batch=self.batch)


@dataclass(frozen=True)
class EntropyLoss:
    """Mean over gates, in nats, of::

        row · mean_b H(p_b)  -  batch · H(mean_b p_b),      H(p) = - Σ_v p_v · log p_v

    The loss is minimised, so the signs say what is wanted. H(p_b) has a plus: it becomes small, and a row chooses one
    expert. H of the mean has a minus: it becomes large, and all experts get rows. With both factors 1 the term is minus
    the mutual information of rows and experts, from - log V (decided and even) to 0 (every row alike). The other
    way round, a bonus for undecided rows, would make all experts the same.

    p is the share that a gate would give were it not sparse; the mean is over the rows of all workers.

    Args:
        row, batch: factors.
    """

    row: float
    batch: float

    def __call__(self, uses: Sequence[GateUse]) -> Tensor:
        """The term; see ``BalanceTerm``."""
        given = [shares_of(gate) for gate in gates_of(uses)]
        means = over_workers([p_BV.mean(dim=0) for p_BV in given] + [entropy(p_BV).mean() for p_BV in given])
        return mean_of(
            [
                self.row * of_rows - self.batch * entropy(mean_V)
                for mean_V, of_rows in zip(means[: len(given)], means[len(given) :], strict=True)
            ]
        )
