"""Policy gate: one expert per row, drawn while it trains; it learns from what its task loses, by policy gradient.

Routing networks: Rosenbaum et al., ICLR 2018, https://arxiv.org/abs/1711.01239, section 3, with one agent per task and
REINFORCE: Williams, Machine Learning 1992, https://doi.org/10.1007/BF00992696, with a baseline.
"""

# B rows, D input width, V visible experts

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from recmoe.axes import EXPERTS, WeightAxes
from recmoe.moe.gates.gate import Detail, GateKind, Policy, Weighed
from recmoe.moe.gates.softmax import gate_logits, new_gate_weight
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput


class PolicyGateConfig(GateKind):
    """One expert per row and gate: drawn while training, the most probable one afterwards; learned by policy gradient.

    Training logs the losses ``gates.policy`` and ``gates.baseline``.
    """

    details: ClassVar[frozenset[Detail]] = frozenset({"logits", "policy"})
    untaught: ClassVar[frozenset[str]] = frozenset({"x", "weight_VD", "expected.weight", "expected.bias"})
    kind: Literal["policy"] = "policy"

    def build(self, *, in_features: int, num_experts: int) -> "PolicyGate":
        """The gate over ``num_experts`` visible experts."""
        return PolicyGate(in_features=in_features, num_experts=num_experts)


class PolicyGate(nn.Module):
    """p_BV = 1 for the expert a of a row, 0 for the others::

        a ~ π(· | x) = softmax(x · W)        while training
        a = argmax_v π(v | x)                otherwise

    Only the expert that was drawn is computed, in training too. So no gradient tells the gate what others would have
    given; it learns by a loss of its own, from what its task lost in each row, see ``PolicyLosses``. Its baseline is
    linear in x, too. Both read x as it is: their gradient does not reach what x is made of, which serves the tasks.

    Left out of the paper: its agent that dispatches rows to agents, here a row's gates are its tasks'; rewards for
    using what others use, for which there is ``model.balance``; and WPL, the paper's own rule for agents that learn
    next to each other.

    Args:
        in_features: D.
        num_experts: V.
    """

    sums_to_one = True
    is_sparse = True
    num_used = 1

    def __init__(self, *, in_features: int, num_experts: int) -> None:
        super().__init__()
        self.weight_VD = new_gate_weight(in_features=in_features, num_experts=num_experts)
        self.expected = nn.Linear(in_features, 1)

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:
        """p_BV in float32: one of a row is one, the others are zero."""
        return self.weigh(x, groups).weights_BV

    def weigh(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Weighed:  # noqa: ARG002
        """The same weights; in training with how the draw came about. See ``TellsMore``."""
        x = _detached(x)
        logits_BV = gate_logits(x, self.weight_VD)
        # Less the logarithm of an exponential draw: the largest is a draw from the softmax.
        scores_BV = logits_BV.detach()
        if self.training:
            scores_BV = scores_BV - torch.empty_like(scores_BV).exponential_().log()
        expert_B1 = scores_BV.argmax(dim=1, keepdim=True)
        p_BV = torch.zeros_like(scores_BV).scatter(1, expert_B1, 1.0)
        if not self.training:
            return Weighed(p_BV, logits_BV)
        log_chance_B = torch.log_softmax(logits_BV, dim=1).gather(1, expert_B1)[:, 0]
        return Weighed(p_BV, logits_BV, policy=Policy(log_chance_B, self.expect(x)))

    def expect(self, x: Tensor | SidedInput) -> Tensor:
        """expected_B; see ``LearnsByPolicy``."""
        return gate_logits(_detached(x), self.expected.weight)[:, 0] + self.expected.bias

    def linear_form(self) -> None:
        """It reads its input without a gradient, which others need; see ``Gate``."""

    def weight_axes(self) -> WeightAxes:
        """The experts that it sees; see ``Gate``."""
        return {"weight_VD": (EXPERTS, None)}


def _detached(x: Tensor | SidedInput) -> Tensor | SidedInput:
    if isinstance(x, Tensor):
        return x.detach()
    return replace(x, shared_RS=x.shared_RS.detach(), own_CI=x.own_CI.detach())
