"""Null experts: a row's k best places may fall to experts that are nothing, so that rows use few experts or many.

AdaMoE: Zeng et al., EMNLP Findings 2024, https://arxiv.org/abs/2406.13233, token-adaptive routing with null experts.
"""

# B rows, D input width, V visible experts, M null experts, L = V + M logits of a row

from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from recmoe.axes import EXPERTS, WeightAxes
from recmoe.moe.gates.gate import Detail, GateKind, LinearForm, Nulls, Weighed
from recmoe.moe.gates.softmax import gate_logits, new_gate_weight
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput


class NullExpertsGateConfig(GateKind):
    """The k best of experts and null experts; null ones cost nothing and add nothing.

    ``model.balance`` with a term of kind null_experts keeps their use even: a row then uses k · V / (V + num_null) of
    V experts in the mean. Without it nothing moves the logits of null experts.
    """

    details: ClassVar[frozenset[Detail]] = frozenset({"logits", "nulls"})
    untaught: ClassVar[frozenset[str]] = frozenset({"nulls_MD"})
    kind: Literal["null_experts"] = "null_experts"
    k: PositiveInt = 4
    """Experts chosen per row and gate, null ones included; all of them where there are fewer."""
    num_null: PositiveInt = 4
    """Null experts."""

    def build(self, *, in_features: int, num_experts: int) -> "NullExpertsGate":
        """The gate over ``num_experts`` visible experts."""
        return NullExpertsGate(in_features=in_features, num_experts=num_experts, k=self.k, num_null=self.num_null)


class NullExpertsGate(nn.Module):
    """p_BV = softmax over those of the k largest logits of a row that are not of null experts; zero for the others::

        T    = the k largest of x · [W, W_null]
        p_v  = exp(x · w_v) / Σ over the experts u in T of exp(x · w_u),   0 where v is not in T

    As in the authors' code the weights of the chosen experts sum to one, however many null ones are chosen next to
    them. A row that chooses null experts alone has a representation of zeros, as one that switches on none of a ReLU
    gate. Null experts matter to the choice only: no gradient of the weights reaches W_null.

    Example: two experts, two null ones, k = 2::

        logits   2   1 | 3   0     chosen  e0 and a null one         p = 1    0
                 2   1 | 0   0             e0 and e1                     .73 .27
                 2   1 | 4   3             null ones alone               0    0

    Args:
        in_features: D.
        num_experts: V.
        k: experts chosen per row, null ones included; all where V + M is smaller.
        num_null: M.
    """

    sums_to_one = False
    is_sparse = True

    def __init__(self, *, in_features: int, num_experts: int, k: int, num_null: int) -> None:
        super().__init__()
        self.k = min(k, num_experts + num_null)
        self.num_used = min(k, num_experts)
        self.weight_VD = new_gate_weight(in_features=in_features, num_experts=num_experts)
        self.nulls_MD = new_gate_weight(in_features=in_features, num_experts=num_null)

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:  # noqa: ARG002
        """p_BV in float32: not negative, rows sum to one or to zero, at most k of a row above zero."""
        return self._shares(gate_logits(x, self.linear_form().weight_LD)).weights_BV

    def linear_form(self) -> LinearForm:
        """One product with both matrices; see ``Gate``."""
        return LinearForm(torch.cat([self.weight_VD, self.nulls_MD]), self._shares)

    def weight_axes(self) -> WeightAxes:
        """The experts that it sees; null ones have no names. See ``Gate``."""
        return {"weight_VD": (EXPERTS, None), "nulls_MD": (None, None)}

    def _shares(self, logits_BL: Tensor) -> Weighed:
        sizes = [len(self.weight_VD), len(self.nulls_MD)]
        chosen_BK = logits_BL.detach().topk(self.k, dim=1).indices
        is_chosen_BL = torch.zeros_like(logits_BL, dtype=torch.bool).scatter(1, chosen_BK, True)
        is_chosen_BV, is_null_BM = torch.split(is_chosen_BL, sizes, dim=1)
        logits_BV, nulls_BM = torch.split(logits_BL, sizes, dim=1)
        # The largest share is among the chosen ones, if any is chosen: the sum is never close to zero.
        shares_BV = torch.where(is_chosen_BV, torch.softmax(logits_BV, dim=1), 0.0)
        sum_B1 = shares_BV.sum(dim=1, keepdim=True)
        p_BV = shares_BV / torch.where(sum_B1 == 0, 1.0, sum_B1)
        return Weighed(p_BV, logits_BV, nulls=Nulls(nulls_BM, is_null_BM))
