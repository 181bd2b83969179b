"""MLP gate: shares from a network with hidden layers, for choices that are not linear in the input."""

# B rows, D input width, V visible experts

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from recmoe.axes import EXPERTS, WeightAxes
from recmoe.moe.gates.gate import Detail, GateKind, Weighed
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput, linear


class MlpGateConfig(GateKind):
    """Shares from a network with hidden layers."""

    details: ClassVar[frozenset[Detail]] = frozenset({"logits"})
    kind: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32,)
    """Width of each hidden layer."""
    temperature: PositiveFloat = 1.0
    """Divides the logits: above 1 the shares are more even, below 1 more decided."""

    def build(self, *, in_features: int, num_experts: int) -> "MlpGate":
        """The gate over ``num_experts`` visible experts."""
        return MlpGate(
            in_features=in_features, num_experts=num_experts, hidden=self.hidden, temperature=self.temperature
        )


class MlpGate(nn.Module):
    """p_BV = softmax(mlp(x_BD) / temperature), with ReLU between the layers.

    Args:
        in_features: D.
        num_experts: V.
        hidden: width of each hidden layer.
        temperature: divides the logits.
    """

    sums_to_one = True
    is_sparse = False

    def __init__(self, *, in_features: int, num_experts: int, hidden: Sequence[int], temperature: float = 1.0) -> None:
        super().__init__()
        self.num_used = num_experts
        self.temperature = temperature
        first, *others = pairwise((in_features, *hidden, num_experts))
        self.first = nn.Linear(*first)
        self.others = nn.Sequential()
        for before, after in others:
            self.others.extend([nn.ReLU(), nn.Linear(before, after)])

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:
        """p_BV in float32: not negative, rows sum to one."""
        return self.weigh(x, groups).weights_BV

    def weigh(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Weighed:  # noqa: ARG002
        """The same weights, with their logits; see ``TellsMore``."""
        weight_OD = self.first.weight
        with torch.autocast(weight_OD.device.type, enabled=False):
            logits_BV = self.others(linear(x.to(weight_OD.dtype), weight_OD, self.first.bias))
            logits_BV = logits_BV / self.temperature
            return Weighed(torch.softmax(logits_BV, dim=1), logits_BV)

    def linear_form(self) -> None:
        """It is no single product; see ``Gate``."""

    def weight_axes(self) -> WeightAxes:
        """Its last layer gives the experts; see ``Gate``."""
        last = f"others.{len(self.others) - 1}"
        return {f"{last}.weight": (EXPERTS, None), f"{last}.bias": (EXPERTS,)}
