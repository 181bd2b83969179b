"""Attention gate: the logit of an expert takes account of those of the others.

Attention router: Yuan 2.0-M32, Wu et al. 2024, https://arxiv.org/abs/2405.17976, section 2.
"""

# B rows, D input width, V visible experts, L logits of a row, K experts chosen

from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from recmoe.axes import EXPERTS, WeightAxes
from recmoe.moe.gates.gate import Detail, GateKind, LinearForm, Weighed
from recmoe.moe.gates.softmax import gate_logits, new_gate_weight, shares_of_chosen
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput


class AttentionGateConfig(GateKind):
    """Shares for the k best visible experts of each row, whose logits attend to each other."""

    details: ClassVar[frozenset[Detail]] = frozenset({"logits"})
    kind: Literal["attention"] = "attention"
    k: PositiveInt = 2
    """Experts used per row and gate; all of them where a gate sees fewer."""

    def build(self, *, in_features: int, num_experts: int) -> "AttentionGate":
        """The gate over ``num_experts`` visible experts."""
        return AttentionGate(in_features=in_features, num_experts=num_experts, k=self.k)


class AttentionGate(nn.Module):
    """p_BV = softmax over the k largest of a row's P_V; zero for the other experts::

        q = x · W,  k = x · W',  v = x · W''        one number per expert each
        P = softmax(q kᵀ) v                         row by row of the V × V products, which nothing divides

    Args:
        in_features: D.
        num_experts: V.
        k: experts used per row; all where V is smaller.
    """

    sums_to_one = True
    is_sparse = True

    def __init__(self, *, in_features: int, num_experts: int, k: int) -> None:
        super().__init__()
        self.num_used = min(k, num_experts)
        self.query_VD = new_gate_weight(in_features=in_features, num_experts=num_experts)
        self.key_VD = new_gate_weight(in_features=in_features, num_experts=num_experts)
        self.value_VD = new_gate_weight(in_features=in_features, num_experts=num_experts)

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:  # noqa: ARG002
        """p_BV in float32: not negative, rows sum to one, at most k of a row above zero."""
        return self._shares(gate_logits(x, self.linear_form().weight_LD)).weights_BV

    def linear_form(self) -> LinearForm:
        """One product with all three matrices; see ``Gate``."""
        return LinearForm(torch.cat([self.query_VD, self.key_VD, self.value_VD]), self._shares)

    def weight_axes(self) -> WeightAxes:
        """The experts that it sees; see ``Gate``."""
        return dict.fromkeys(("query_VD", "key_VD", "value_VD"), (EXPERTS, None))

    def _shares(self, logits_BL: Tensor) -> Weighed:
        query_BV, key_BV, value_BV = logits_BL.chunk(3, dim=1)
        attention_BVV = torch.softmax(query_BV.unsqueeze(2) * key_BV.unsqueeze(1), dim=2)
        # A product and a sum, not a matmul, which autocast would run in less than float32.
        attended_BV = (attention_BVV * value_BV.unsqueeze(1)).sum(dim=2)
        return Weighed(shares_of_chosen(attended_BV, attended_BV.topk(self.num_used, dim=1).indices), attended_BV)
