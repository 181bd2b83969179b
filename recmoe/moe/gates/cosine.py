"""Cosine gate: rows and experts meet as directions in a small space, so that no length draws rows to an expert.

X-MoE: Chi et al., NeurIPS 2022, https://arxiv.org/abs/2204.09179, routing score with softmax gate.
"""

# B rows, D input width, V visible experts, P width of the space, K experts chosen

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from recmoe.axes import EXPERTS, WeightAxes
from recmoe.moe.gates.gate import Detail, GateKind, LinearForm, Weighed
from recmoe.moe.gates.softmax import gate_logits, new_gate_weight
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput

LOWEST_TEMPERATURE = 0.01
"""At which a softmax of cosines is all but decided; without an end the temperature would run towards zero."""


class CosineGateConfig(GateKind):
    """Shares by the angle between a row and each expert in a small space."""

    details: ClassVar[frozenset[Detail]] = frozenset({"logits"})
    kind: Literal["cosine"] = "cosine"
    k: PositiveInt | None = 2
    """Experts used per row and gate, all of them where a gate sees fewer; null gives every expert a share."""
    width: PositiveInt = 16
    """Floats of a direction; the authors take 16 for 32 experts."""
    temperature: Annotated[float, Field(ge=LOWEST_TEMPERATURE)] = 0.07
    """Divides the cosines as training begins; it is learned."""

    def build(self, *, in_features: int, num_experts: int) -> "CosineGate":
        """The gate over ``num_experts`` visible experts."""
        return CosineGate(
            in_features=in_features, num_experts=num_experts, k=self.k, width=self.width, temperature=self.temperature
        )


class CosineGate(nn.Module):
    """p_BV = softmax(s_BV / temperature) over all V, zero but for the k largest::

        s_v = cos(W · x, e_v)

    What a chosen expert gets is its share among all experts, as in the paper, so that the gate learns from its choice
    with k = 1 too: with fewer than all experts the weights of a row sum to less than one.

    Args:
        in_features: D.
        num_experts: V.
        k: experts used per row; all where V is smaller, or without k.
        width: P.
        temperature: at the start; its logarithm is learned, down to ``LOWEST_TEMPERATURE``.
    """

    def __init__(
        self, *, in_features: int, num_experts: int, k: int | None, width: int = 16, temperature: float = 0.07
    ) -> None:
        super().__init__()
        self.num_used = num_experts if k is None else min(k, num_experts)
        self.is_sparse = self.num_used < num_experts
        self.sums_to_one = not self.is_sparse
        self.weight_PD = new_gate_weight(in_features=in_features, num_experts=width)
        self.experts_VP = nn.Parameter(torch.randn(num_experts, width))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:  # noqa: ARG002
        """p_BV in float32: not negative, at most k of a row above zero."""
        return self._shares(gate_logits(x, self.weight_PD)).weights_BV

    def linear_form(self) -> LinearForm:
        """The product that brings rows into the small space; see ``Gate``."""
        return LinearForm(self.weight_PD, self._shares)

    def weight_axes(self) -> WeightAxes:
        """The experts that it sees; see ``Gate``."""
        return {"experts_VP": (EXPERTS, None)}

    def _shares(self, row_BP: Tensor) -> Weighed:
        with torch.autocast(row_BP.device.type, enabled=False):
            experts_VP = functional.normalize(self.experts_VP.to(row_BP.dtype), dim=1)
            cosine_BV = functional.normalize(row_BP, dim=1) @ experts_VP.t()
            temperature = self.log_temperature.exp().clamp(min=LOWEST_TEMPERATURE)
            logits_BV = cosine_BV / temperature
            p_BV = torch.softmax(logits_BV, dim=1)
        if not self.is_sparse:
            return Weighed(p_BV, logits_BV)
        best_BK, chosen_BK = p_BV.topk(self.num_used, dim=1)
        return Weighed(torch.zeros_like(p_BV).scatter(1, chosen_BK, best_BK), logits_BV)
