"""Fallback gate: a softmax that leaves rows it is unsure of to the shared experts.

The uncertainty is the entropy of the gate's own shares, as in adaptive gating: Li et al., EMNLP 2023,
https://arxiv.org/abs/2310.07188, looks at how far a token's first choice is ahead. What is done with it here, the
mean of the shared experts in the place of a choice that is none, is this project's own.
"""

# B rows, D input width, V visible experts

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from recmoe.moe.gates.gate import Detail, GateKind, Weighed
from recmoe.moe.gates.softmax import LinearGate

SHARED = "shared"
"""Owner of experts that all tasks share, in the names of experts."""


class FallbackGateConfig(GateKind):
    """A share for every visible expert; rows that the gate is unsure of fall back to the shared ones."""

    details: ClassVar[frozenset[Detail]] = frozenset({"logits"})
    kind: Literal["fallback"] = "fallback"
    limit: Annotated[float, Field(ge=0, lt=1)] = 0.8
    """Entropy of a row's shares above which it falls back, as a part of the entropy of even shares."""
    temperature: PositiveFloat = 1.0
    """Divides the logits: above 1 the shares are more even, below 1 more decided."""

    def build(self, *, in_features: int, num_experts: int) -> "FallbackGate":
        """The gate over ``num_experts`` visible experts."""
        return FallbackGate(
            in_features=in_features, num_experts=num_experts, limit=self.limit, temperature=self.temperature
        )


class FallbackGate(LinearGate):
    """q_BV = (1 - u) · p + u · s: the gate's shares p, and as far as it is unsure the mean s of the shared experts::

        p   = softmax(x · W / temperature)
        H   = - Σ_v p_v · log p_v / log V                    0: decided, 1: even
        u   = 0 where H ≤ limit,   (H - limit) / (1 - limit) above
        s_v = 1 / number of shared experts that the gate sees,   0 for the others

    Where the gate sees no shared expert, s is the mean of all that it sees. The fallback grows with H, without a jump:
    so scores do not jump either, and a row of which a gate is unsure still says what a choice would be worth.

    Example: an own and two shared experts, limit 0.8::

        p = .90  .05  .05      H =  .36      u = 0      q = .90  .05  .05
        p = .50  .25  .25      H =  .95      u = .73    q = .13  .43  .43
        p = .33  .33  .33      H = 1         u = 1      q =   0  .50  .50

    Args:
        in_features: D.
        num_experts: V.
        limit: of H.
        temperature: divides the logits.
    """

    sums_to_one = True
    is_sparse = False

    fallback_V: Tensor
    """s."""

    def __init__(self, *, in_features: int, num_experts: int, limit: float, temperature: float = 1.0) -> None:
        super().__init__(in_features=in_features, num_experts=num_experts, temperature=temperature)
        self.num_used = num_experts
        self.limit = limit
        self.register_buffer("fallback_V", torch.full((num_experts,), 1.0 / num_experts), persistent=False)

    def take_names(self, names: Sequence[str]) -> None:
        """Learn which of the experts are shared; see ``KnowsExperts``."""
        is_shared = [name.rpartition(".")[0] == SHARED for name in names]
        if any(is_shared):
            shares_V = torch.tensor(is_shared, dtype=torch.float32) / sum(is_shared)
            self.fallback_V.copy_(shares_V)

    def shares(self, logits_BV: Tensor) -> Weighed:
        """Not negative; rows sum to one."""
        logits_BV = logits_BV / self.temperature
        p_BV = torch.softmax(logits_BV, dim=1)
        # Of one expert the entropy is 0, whatever it is divided by.
        most = math.log(max(self.num_used, 2))
        entropy_B1 = -(p_BV * torch.log_softmax(logits_BV, dim=1)).sum(dim=1, keepdim=True) / most
        unsure_B1 = ((entropy_B1 - self.limit) / (1.0 - self.limit)).clamp(0.0, 1.0)
        return Weighed(torch.lerp(p_BV, self.fallback_V.to(p_BV.dtype).expand_as(p_BV), unsure_B1), logits_BV)
