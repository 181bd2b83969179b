"""Random gate: a router that is drawn once and never learns; it gives rows few experts at first, and more and more.

SMoE-Dropout: Chen et al., ICLR 2023, https://arxiv.org/abs/2303.01610, section 3: random routing and growing k.
"""

# B rows, D input width, V visible experts, K experts used

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from recmoe.axes import EXPERTS, WeightAxes
from recmoe.moe.gates.gate import GateKind, LinearForm
from recmoe.moe.gates.softmax import gate_logits, new_gate_weight
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput


class RandomGateConfig(GateKind):
    """Experts by a router that is drawn once and never learns; rows use more and more of them as training goes on."""

    kind: Literal["random"] = "random"
    first_k: PositiveInt = 2
    """Experts used per row and gate in the first step; all of them where a gate sees fewer."""
    grow_steps: PositiveInt = 1000
    """Training steps over which the experts of a row grow from ``first_k`` to all, in a line."""
    k: PositiveInt | None = None
    """Experts used per row and gate in evaluation and serving; null is all. Any number works with the same weights:
    fewer cost less."""

    def build(self, *, in_features: int, num_experts: int) -> "RandomGate":
        """The gate over ``num_experts`` visible experts."""
        return RandomGate(
            in_features=in_features,
            num_experts=num_experts,
            first_k=self.first_k,
            grow_steps=self.grow_steps,
            k=self.k,
        )


class RandomGate(nn.Module):
    """p_BV = softmax over the K largest of x_BD · W, with a W that stays as it was drawn; zero for the other experts::

        K = first_k + round((V - first_k) · s / grow_steps)      in training step s = 0, 1 …;   V from grow_steps on
        K = k                                                    otherwise

    Experts cannot collapse on one that the router prefers, for it prefers none; each learns to work with those around
    it, few at first, as units do under dropout. Steps are counted by the gate, in its state: a run that resumes goes on
    where it was, and one that starts from a trained model keeps all experts. Evaluation before the end is done with k,
    as serving is.

    Args:
        in_features: D.
        num_experts: V.
        first_k: K of the first step; V where that is smaller.
        grow_steps: training steps from first_k to V.
        k: K outside of training; V where that is smaller, or without k.
    """

    sums_to_one = True

    weight_VD: Tensor
    num_steps: Tensor
    """Training steps so far."""

    def __init__(
        self, *, in_features: int, num_experts: int, first_k: int, grow_steps: int, k: int | None = None
    ) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.first_k = min(first_k, num_experts)
        self.grow_steps = grow_steps
        self.k = num_experts if k is None else min(k, num_experts)
        drawn_VD = new_gate_weight(in_features=in_features, num_experts=num_experts)
        self.register_buffer("weight_VD", drawn_VD.detach())
        self.register_buffer("num_steps", torch.zeros(()))

    @property
    def num_used(self) -> int:
        """Experts with a weight per row, at most; see ``Gate``."""
        return self.num_experts if self.training else self.k

    @property
    def is_sparse(self) -> bool:
        """Until all experts are used; see ``Gate``."""
        if not self.training:
            return self.k < self.num_experts
        # A GPU would have to be waited for.
        return self.num_steps.is_cuda or int(self.num_steps) < self.grow_steps

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:  # noqa: ARG002
        """p_BV in float32: not negative, rows sum to one."""
        return self._shares(gate_logits(x, self.weight_VD))

    def linear_form(self) -> LinearForm:
        """The product, and the softmax of its largest; see ``Gate``."""
        return LinearForm(self.weight_VD, self._shares)

    def weight_axes(self) -> WeightAxes:
        """The experts that it sees; see ``Gate``."""
        return {"weight_VD": (EXPERTS, None), "num_steps": ()}

    def _shares(self, logits_BV: Tensor) -> Tensor:
        # The place of every expert in the order of its row: K may be known to the device alone.
        place_BV = logits_BV.detach().argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        chosen_BV = torch.where(place_BV < self._take_k(), logits_BV, -torch.inf)
        return torch.softmax(chosen_BV, dim=1)

    def _take_k(self) -> Tensor | int:
        """K of this batch; a training batch counts as a step."""
        if not self.training:
            return self.k
        growth = (self.num_experts - self.first_k) * self.num_steps.clamp(max=self.grow_steps) / self.grow_steps
        self.num_steps += 1
        return self.first_k + growth.round()
