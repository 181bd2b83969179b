"""Groups: which expert a row gets shall not depend on the group of users that it is of.

The prejudice index of Kamishima et al., ECML PKDD 2012, https://doi.org/10.1007/978-3-642-33486-3_3, with experts in
the place of the predicted class.
"""

# B rows, S groups, V experts visible to a gate

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from recmoe.moe.balance.statistics import SMALLEST_SHARE, entropy, gates_of, mean_of, over_workers, shares_of
from recmoe.moe.balance.term import BalanceLossKind, BalanceTerm
from recmoe.moe.gate_use import GateUse


class GroupsConfig(BalanceLossKind):
    """Groups of users, such as countries, shall use the experts alike (prejudice index, Kamishima et al. 2012)."""

    kind: Literal["groups"] = "groups"
    weight: NonNegativeFloat = 0.1
    """Factor of the term in the loss."""
    feature: str | None = None
    """Feature of kind id that says which group a row is of, such as the country; it has to be named."""
    max_groups: PositiveInt = 64
    """Groups that are distinguished: the first ids of the vocabulary, which are the most frequent. Others, and ids that
    are unknown or missing, are one more group."""

    def id_features(self) -> Mapping[str, str | None]:
        """The feature that says the group."""
        return {"feature": self.feature}

    def build(self, *, task_names: Sequence[str]) -> BalanceTerm:
        """The term; it does not know tasks."""
        del task_names
        assert self.feature is not None, "a config without a feature is refused"
        return GroupInformation(self.feature, num_groups=self.max_groups + 1)


@dataclass(frozen=True)
class GroupInformation:
    """Mean over gates of the mutual information of the group of a row and its expert, in nats::

        Σ_s Σ_v P(s, v) · log(P(s, v) / (P(s) · P(v))),      P(s, v) = mean_b [group of b is s] · p[b, v]

    0 where all groups use the experts alike, log V at most. p is the share that a gate would give were it not sparse,
    and the mean is over the rows of all workers; rows differ inside a group as they like. It is larger than 0 by chance
    in a batch in which groups have few rows: it is then lower for a larger batch or fewer groups.

    Args:
        feature: whose ids are the groups.
        num_groups: S; ids from S on count as 0.
    """

    feature: str
    num_groups: int

    def __call__(self, uses: Sequence[GateUse]) -> Tensor:
        """The term; see ``BalanceTerm``."""
        ids_B = uses[0].ids[self.feature]
        group_B = torch.where(ids_B < self.num_groups, ids_B, 0)
        joints = over_workers([self._joint(group_B, shares_of(gate)) for gate in gates_of(uses)])
        return mean_of([_information(joint_SV) for joint_SV in joints])

    def _joint(self, group_B: Tensor, p_BV: Tensor) -> Tensor:
        return p_BV.new_zeros(self.num_groups, p_BV.shape[1]).index_add(0, group_B, p_BV) / len(p_BV)


def _information(joint_SV: Tensor) -> Tensor:
    # Rows to which a gate gave nothing are not there.
    p_SV = joint_SV / joint_SV.sum().clamp(min=SMALLEST_SHARE)
    return entropy(p_SV.sum(dim=0)) + entropy(p_SV.sum(dim=1)) - entropy(p_SV.flatten())
