"""Gumbel gate: one expert per row, drawn while it trains, with the gradient of a soft choice.

Straight-through Gumbel-softmax: Jang et al., ICLR 2017, https://arxiv.org/abs/1611.01144, equations 1 and 2 and
section 2.2.
"""

# B rows, D input width, V visible experts

from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from recmoe.axes import EXPERTS, WeightAxes
from recmoe.moe.gates.gate import Detail, GateKind, LinearForm, Weighed
from recmoe.moe.gates.softmax import gate_logits, new_gate_weight
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput


class GumbelGateConfig(GateKind):
    """One expert per row and gate: drawn while training, the best one afterwards."""

    details: ClassVar[frozenset[Detail]] = frozenset({"logits"})
    kind: Literal["gumbel"] = "gumbel"
    temperature: PositiveFloat = 1.0
    """Of the soft choice whose gradient stands for that of the draw: the lower, the closer and the noisier."""

    def build(self, *, in_features: int, num_experts: int) -> "GumbelGate":
        """The gate over ``num_experts`` visible experts."""
        return GumbelGate(in_features=in_features, num_experts=num_experts, temperature=self.temperature)


class GumbelGate(nn.Module):
    """p_BV = one_hot(argmax of x_BD · W + G_BV), with the gradient of softmax((x_BD · W + G_BV) / temperature)::

        G_bv = -log(-log(U)), U uniform in (0, 1)       while training
        G_bv = 0                                        otherwise

    which draws expert v with probability softmax(x · W)_v.

    In training an expert that was not drawn still says by its output what drawing it would have changed, so that all
    experts are computed; in serving only the best one is. The paper lets the temperature fall with the steps, which a
    gate does not know: here it stays.

    Args:
        in_features: D.
        num_experts: V.
        temperature: of the soft choice.
    """

    sums_to_one = True
    num_used = 1

    def __init__(self, *, in_features: int, num_experts: int, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.weight_VD = new_gate_weight(in_features=in_features, num_experts=num_experts)

    @property
    def is_sparse(self) -> bool:
        """In serving; see ``Gate``."""
        return not self.training

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:  # noqa: ARG002
        """p_BV in float32: one of a row is one, the others are zero."""
        return self._shares(gate_logits(x, self.weight_VD)).weights_BV

    def linear_form(self) -> LinearForm:
        """The product, and the draw; see ``Gate``."""
        return LinearForm(self.weight_VD, self._shares)

    def weight_axes(self) -> WeightAxes:
        """The experts that it sees; see ``Gate``."""
        return {"weight_VD": (EXPERTS, None)}

    def _shares(self, logits_BV: Tensor) -> Weighed:
        if not self.training:
            return Weighed(_one_hot_of_largest(logits_BV), logits_BV)
        # The logarithm of an exponential draw, turned round, is a Gumbel draw.
        drawn_BV = logits_BV - torch.empty_like(logits_BV).exponential_().log()
        soft_BV = torch.softmax(drawn_BV / self.temperature, dim=1)
        # The second term is exactly zero.
        return Weighed(_one_hot_of_largest(drawn_BV) + (soft_BV - soft_BV.detach()), logits_BV)


def _one_hot_of_largest(logits_BV: Tensor) -> Tensor:
    return torch.zeros_like(logits_BV).scatter(1, logits_BV.argmax(dim=1, keepdim=True), 1.0)
