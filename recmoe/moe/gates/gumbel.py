"""Gumbel gate: one expert per row, drawn while it trains, with the gradient of a soft choice.

Straight-through Gumbel-softmax: Jang et al., ICLR 2017, https://arxiv.org/abs/1611.01144, equations 1 and 2 and
section 2.2.
"""

# B rows, D input width, V visible experts

from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor

from recmoe.moe.gates.gate import Detail, GateKind, Weighed
from recmoe.moe.gates.softmax import LinearGate


class GumbelGateConfig(GateKind):
    """One expert per row and gate: drawn while training, the best one afterwards."""

    details: ClassVar[frozenset[Detail]] = frozenset({"logits"})
    kind: Literal["gumbel"] = "gumbel"
    temperature: PositiveFloat = 1.0
    """Of the soft choice whose gradient stands for that of the draw: the lower, the closer and the noisier."""

    def build(self, *, in_features: int, num_experts: int) -> "GumbelGate":
        """The gate over ``num_experts`` visible experts."""
        return GumbelGate(in_features=in_features, num_experts=num_experts, temperature=self.temperature)


class GumbelGate(LinearGate):
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

    @property
    def is_sparse(self) -> bool:
        """In serving; see ``Gate``."""
        return not self.training

    def shares(self, logits_BV: Tensor) -> Weighed:
        """One of a row is one, the others are zero."""
        if not self.training:
            return Weighed(_one_hot_of_largest(logits_BV), logits_BV)
        # The logarithm of an exponential draw, turned round, is a Gumbel draw.
        drawn_BV = logits_BV - torch.empty_like(logits_BV).exponential_().log()
        soft_BV = torch.softmax(drawn_BV / self.temperature, dim=1)
        # The second term is exactly zero.
        return Weighed(_one_hot_of_largest(drawn_BV) + (soft_BV - soft_BV.detach()), logits_BV)


def _one_hot_of_largest(logits_BV: Tensor) -> Tensor:
    return torch.zeros_like(logits_BV).scatter(1, logits_BV.argmax(dim=1, keepdim=True), 1.0)
