"""Noisy top-k gate: top-k whose choice is shaken while it trains, so that every expert gets rows to learn from.

Shazeer et al., ICLR 2017, https://arxiv.org/abs/1701.06538, equations 3-5, and 8-9 of appendix A.
"""

# B rows, D input width, V visible experts

from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from recmoe.axes import EXPERTS, WeightAxes
from recmoe.moe.gates.gate import Detail, GateKind, LinearForm, Weighed
from recmoe.moe.gates.softmax import gate_logits, new_gate_weight, shares_of_chosen
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput


class NoisyTopKGateConfig(GateKind):
    """Shares for the k best visible experts of each row, with noise of a learned size while training."""

    details: ClassVar[frozenset[Detail]] = frozenset({"logits", "load"})
    kind: Literal["noisy_top_k"] = "noisy_top_k"
    k: PositiveInt = 2
    """Experts used per row and gate; all of them where a gate sees fewer."""

    def build(self, *, in_features: int, num_experts: int) -> "NoisyTopKGate":
        """The gate over ``num_experts`` visible experts."""
        return NoisyTopKGate(in_features=in_features, num_experts=num_experts, k=self.k)


class NoisyTopKGate(nn.Module):
    """p_BV = softmax over the k largest of H_BV; zero for the other experts::

        H(x)_v = (x · W_g)_v + N(0, 1) · softplus((x · W_noise)_v)        while training
        H(x)_v = (x · W_g)_v                                              otherwise

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
        self.weight_VD = new_gate_weight(in_features=in_features, num_experts=num_experts)
        # At 0 the noise begins with a deviation of log 2 for every expert, as in the paper's appendix A.
        self.noise_VD = nn.Parameter(torch.zeros_like(self.weight_VD))

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:  # noqa: ARG002
        """p_BV in float32: not negative, rows sum to one, at most k of a row above zero."""
        form = self.linear_form()
        return self._shares(gate_logits(x, form.weight_LD)).weights_BV

    def linear_form(self) -> LinearForm:
        """One product with both matrices; see ``Gate``."""
        return LinearForm(torch.cat([self.weight_VD, self.noise_VD]), self._shares)

    def weight_axes(self) -> WeightAxes:
        """The experts that it sees; see ``Gate``."""
        return {"weight_VD": (EXPERTS, None), "noise_VD": (EXPERTS, None)}

    def _shares(self, logits_BL: Tensor) -> Weighed:
        clean_BV, noise_BV = logits_BL.chunk(2, dim=1)
        noisy_BV, load = clean_BV, None
        if self.training:
            deviation_BV = functional.softplus(noise_BV)
            noisy_BV = clean_BV + torch.randn_like(clean_BV) * deviation_BV
            load = partial(self._load, clean_BV, noisy_BV, deviation_BV)
        chosen_BK = noisy_BV.topk(self.num_used, dim=1).indices
        return Weighed(shares_of_chosen(noisy_BV, chosen_BK), clean_BV, load)

    def _load(self, clean_BV: Tensor, noisy_BV: Tensor, deviation_BV: Tensor) -> Tensor:
        """P(x, v) = Φ((clean_v - the k-th largest H of the other experts) / deviation_v)."""
        k = self.num_used
        if k == noisy_BV.shape[1]:
            return torch.ones_like(clean_BV)
        best_BK = noisy_BV.topk(k + 1, dim=1).values
        # Without an expert that is among the k best, the next one moves up.
        threshold_BV = torch.where(noisy_BV > best_BK[:, k:], best_BK[:, k:], best_BK[:, k - 1 : k])
        chance_BV: Tensor = torch.special.ndtr((clean_BV - threshold_BV) / deviation_BV)
        return chance_BV
