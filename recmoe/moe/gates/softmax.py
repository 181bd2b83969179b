"""Softmax gate: every visible expert gets a share.

MMoE: Ma et al., KDD 2018, https://doi.org/10.1145/3219819.3220007, equation 7.
"""

# B rows, D input width, V visible experts

import math
from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from recmoe.axes import EXPERTS, WeightAxes
from recmoe.moe.gates.gate import Detail, GateKind, LinearForm, Weighed
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput, linear


class SoftmaxGateConfig(GateKind):
    """A share for every visible expert."""

    details: ClassVar[frozenset[Detail]] = frozenset({"logits"})
    kind: Literal["softmax"] = "softmax"
    temperature: PositiveFloat = 1.0
    """Divides the logits: above 1 the shares are more even, below 1 more decided."""

    def build(self, *, in_features: int, num_experts: int) -> "SoftmaxGate":
        """The gate over ``num_experts`` visible experts."""
        return SoftmaxGate(in_features=in_features, num_experts=num_experts, temperature=self.temperature)


class LinearGate(nn.Module):
    """A gate of one product: p_BV is what its kind makes of the logits x_BD · W.

    Args:
        in_features: D.
        num_experts: V.
        temperature: divides the logits, or what its kind makes of them.
    """

    def __init__(self, *, in_features: int, num_experts: int, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature
        self.weight_VD = new_gate_weight(in_features=in_features, num_experts=num_experts)

    @abstractmethod
    def shares(self, logits_BV: Tensor) -> Weighed:
        """p_BV, with what else its kind gives."""

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:  # noqa: ARG002
        """p_BV in float32."""
        return self.shares(gate_logits(x, self.weight_VD)).weights_BV

    def linear_form(self) -> LinearForm:
        """The product, and what becomes of it; see ``Gate``."""
        return LinearForm(self.weight_VD, self.shares)

    def weight_axes(self) -> WeightAxes:
        """The experts that it sees; see ``Gate``."""
        return {"weight_VD": (EXPERTS, None)}


class SoftmaxGate(LinearGate):
    """p_BV = softmax(x_BD · W / temperature), over the visible experts.

    Args:
        in_features: D.
        num_experts: V.
        temperature: divides the logits.
    """

    sums_to_one = True
    is_sparse = False

    def __init__(self, *, in_features: int, num_experts: int, temperature: float = 1.0) -> None:
        super().__init__(in_features=in_features, num_experts=num_experts, temperature=temperature)
        self.num_used = num_experts

    def shares(self, logits_BV: Tensor) -> Weighed:
        """Not negative; rows sum to one."""
        logits_BV = logits_BV / self.temperature
        return Weighed(torch.softmax(logits_BV, dim=1), logits_BV)


def new_gate_weight(*, in_features: int, num_experts: int) -> nn.Parameter:
    """A gate's matrix without bias, as in the papers, drawn as ``nn.Linear`` draws its weight."""
    bound = 1.0 / math.sqrt(in_features)
    return nn.Parameter(torch.empty(num_experts, in_features).uniform_(-bound, bound))


def shares_of_chosen(logits_BV: Tensor, chosen_BK: Tensor) -> Tensor:
    """p_BV: the softmax over the experts that a row has chosen, by their places; zero for the others."""
    return torch.zeros_like(logits_BV).scatter(1, chosen_BK, torch.softmax(logits_BV.gather(1, chosen_BK), dim=1))


def gate_logits(x: Tensor | SidedInput, *weights_VD: Tensor) -> Tensor:
    """x · W in float32 (float64 where the weight is), also where autocast would take less.

    Args:
        weights_VD: W, or several that stand for one, one after the other.
    """
    weight_VD = weights_VD[0] if len(weights_VD) == 1 else torch.cat(weights_VD)
    # Gates run in float32: in bfloat16 the softmax of near-equal experts collapses to one.
    dtype = torch.promote_types(weight_VD.dtype, torch.float32)
    device_type = weight_VD.device.type
    if not torch.is_autocast_enabled(device_type):
        return linear(x.to(dtype), weight_VD.to(dtype), made_of=weights_VD)
    with torch.autocast(device_type, enabled=False):
        return linear(x.to(dtype), weight_VD.to(dtype), made_of=weights_VD)
