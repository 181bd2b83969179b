"""DSelect-k gate: a smooth choice of at most k experts, each named by a binary code.

Hazimeh et al., NeurIPS 2021, https://arxiv.org/abs/2106.03760: smooth-step, selectors of one expert, their mixture;
the gate that is conditioned on the row.
"""

# B rows, D input width, V visible experts, K selectors, M bits of a code, C codes, L logits of a row

from typing import Literal, NamedTuple

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from recmoe.axes import WeightAxes, of_all_experts
from recmoe.moe.gates.gate import GateKind, LinearForm
from recmoe.moe.gates.softmax import gate_logits, new_gate_weight
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput


class DSelectKGateConfig(GateKind):
    """A smooth choice of at most k experts, which begins with all of them and decides itself as it trains."""

    kind: Literal["dselect_k"] = "dselect_k"
    k: PositiveInt = 2
    """Selectors: experts used per row and gate once every bit is decided, at most."""
    gamma: PositiveFloat = 1.0
    """Width of the part in which a bit is undecided: the larger, the later experts are left out."""

    def build(self, *, in_features: int, num_experts: int) -> "DSelectKGate":
        """The gate over ``num_experts`` visible experts."""
        return DSelectKGate(in_features=in_features, num_experts=num_experts, k=self.k, gamma=self.gamma)


class Selections(NamedTuple):
    """What the selectors chose."""

    experts_BKV: Tensor
    """Weights that each selector gives the experts, which sum to one; a term of their entropy makes it decide."""
    shares_BK: Tensor
    """Weight of each selector; they sum to one."""


class DSelectKGate(nn.Module):
    """p_BV = Σ_k softmax(x · A)_k · r_k, the mixture of K selectors of one expert each::

        r_k[v] = Π_m S(z_km) where bit m of v is 1, 1 - S(z_km) where it is 0,      z_km = x · Z_km
        S(t)   = 0 below -γ/2,   1 above γ/2,   -2t³/γ³ + 3t/(2γ) + 1/2 between

    A decided bit, S = 0 or 1, leaves out half of the experts, and lets no gradient through; with all bits decided a
    selector weights one expert.

    Where V is no power of two, some codes name no expert. The paper keeps selectors away from them by a loss; here
    every such code c names expert c - V besides, so that weights sum to one whatever the bits.

    Example: three experts, two bits::

        bits of a code (1, 0)     0 0    0 1    1 0    1 1
        expert                     0      1      2      0

    Args:
        in_features: D.
        num_experts: V.
        k: K.
        gamma: γ.
    """

    sums_to_one = True
    is_sparse = True

    def __init__(self, *, in_features: int, num_experts: int, k: int, gamma: float = 1.0) -> None:
        super().__init__()
        # A row may use all experts until its bits are decided.
        self.num_used = self.num_experts = num_experts
        self.gamma = gamma
        num_bits = max(1, (num_experts - 1).bit_length())
        # Bits begin undecided, as the authors draw them: a decided one would not learn.
        self.bits_KMD = nn.Parameter(torch.empty(k, num_bits, in_features).uniform_(-gamma / 100, gamma / 100))
        self.shares_KD = new_gate_weight(in_features=in_features, num_experts=k)

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:  # noqa: ARG002
        """p_BV in float32: not negative, rows sum to one."""
        return self._shares(gate_logits(x, self.linear_form().weight_LD))

    def linear_form(self) -> LinearForm:
        """One product for the bits of all selectors and their shares; see ``Gate``."""
        return LinearForm(torch.cat([self.bits_KMD.flatten(0, 1), self.shares_KD]), self._shares)

    def weight_axes(self) -> WeightAxes:
        """Codes number all experts that it sees; selectors belong to none. See ``Gate``."""
        return {"bits_KMD": (None, of_all_experts(self.bits_KMD.shape[1]), None)}

    def _shares(self, logits_BL: Tensor) -> Tensor:
        selections = self.selections(logits_BL)
        return (selections.shares_BK.unsqueeze(2) * selections.experts_BKV).sum(dim=1)

    def selections(self, logits_BL: Tensor) -> Selections:
        """What each selector chooses, before they are mixed; from the product of the linear form."""
        num_selectors, num_bits, _ = self.bits_KMD.shape
        bits_BL, shares_BK = torch.split(logits_BL, [num_selectors * num_bits, num_selectors], dim=1)
        bits_BKM = smooth_step(torch.unflatten(bits_BL, 1, (num_selectors, num_bits)), self.gamma)
        codes_BKC = torch.ones_like(bits_BKM[:, :, :1])
        # Bit after bit, not by prod(): its gradient at zeros, which are the point here, asks the device for a count.
        for bit_BK1 in torch.split(bits_BKM, 1, dim=2):
            codes_BKC = torch.cat([codes_BKC * (1.0 - bit_BK1), codes_BKC * bit_BK1], dim=2)
        num_spare = codes_BKC.shape[2] - self.num_experts
        named_BKV, spare_BKC = torch.split(codes_BKC, [self.num_experts, num_spare], dim=2)
        experts_BKV = named_BKV + functional.pad(spare_BKC, (0, self.num_experts - num_spare))
        return Selections(experts_BKV, torch.softmax(shares_BK, dim=1))


def smooth_step(t: Tensor, gamma: float) -> Tensor:
    """From 0 to 1 along a cubic between -gamma/2 and gamma/2, with slope 0 at both ends."""
    inside = (t / gamma).clamp(-0.5, 0.5)
    return -2.0 * inside**3 + 1.5 * inside + 0.5
