"""ReLU gate: every expert is switched on by itself, to any degree, and off without a jump.

ReMoE: Wang et al., ICLR 2025, https://arxiv.org/abs/2412.14711, ReLU routing.
"""

# B rows, D input width, V visible experts

from typing import Literal

import torch
from torch import Tensor, nn

from recmoe.axes import EXPERTS, WeightAxes
from recmoe.moe.gates.gate import GateKind, LinearForm
from recmoe.moe.gates.softmax import gate_logits, new_gate_weight
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput


class ReluGateConfig(GateKind):
    """A weight of any size for every expert that a row switches on; a row may switch on several, or none."""

    kind: Literal["relu"] = "relu"

    def build(self, *, in_features: int, num_experts: int) -> "ReluGate":
        """The gate over ``num_experts`` visible experts."""
        return ReluGate(in_features=in_features, num_experts=num_experts)


class ReluGate(nn.Module):
    """p_BV = relu(x_BD · W).

    The weights of a row sum to anything. A row that switches on no expert has a representation of zeros, from which
    its tower gives its bias. As training begins half of the experts are on. The paper brings this down to a share of
    its choice by adding the sum of the weights to the loss, with a factor that follows the share; the gate itself
    holds none of that.

    Args:
        in_features: D.
        num_experts: V.
    """

    sums_to_one = False
    is_sparse = True

    def __init__(self, *, in_features: int, num_experts: int) -> None:
        super().__init__()
        self.num_used = num_experts
        self.weight_VD = new_gate_weight(in_features=in_features, num_experts=num_experts)

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:  # noqa: ARG002
        """p_BV in float32: not negative."""
        return torch.relu(gate_logits(x, self.weight_VD))

    def linear_form(self) -> LinearForm:
        """The product, and what of it is above zero; see ``Gate``."""
        return LinearForm(self.weight_VD, torch.relu)

    def weight_axes(self) -> WeightAxes:
        """The experts that it sees; see ``Gate``."""
        return {"weight_VD": (EXPERTS, None)}
