"""Switch gate: a row uses its most probable expert, weighted by that probability; in training, experts have a capacity.

Switch Transformer: Fedus et al., JMLR 2022, https://arxiv.org/abs/2101.03961, equations 1 and 2 with k = 1. With more
experts per row it is the gate of V-MoE: Riquelme et al., NeurIPS 2021, https://arxiv.org/abs/2106.05974, equation 2,
without the noise.
"""

# B rows, D input width, V visible experts, K experts chosen

from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from recmoe.moe.gates.gate import Detail, GateKind, Weighed
from recmoe.moe.gates.in_training import InTrainingConfig
from recmoe.moe.gates.in_training.first_come import FirstComeConfig
from recmoe.moe.gates.in_training.rule import Rule
from recmoe.moe.gates.softmax import LinearGate


class SwitchGateConfig(GateKind):
    """The most probable experts of each row, weighted by their probabilities; in training, experts have a capacity."""

    details: ClassVar[frozenset[Detail]] = frozenset({"logits"})
    kind: Literal["switch"] = "switch"
    k: PositiveInt = 1
    """Experts used per row and gate; all of them where a gate sees fewer. 1 is Switch."""
    temperature: PositiveFloat = 1.0
    """Divides the logits: above 1 the probabilities are more even, below 1 more decided."""
    in_training: InTrainingConfig = FirstComeConfig()
    """How the rows of a training batch share out the experts. Evaluation and serving always give a row its own k most
    probable experts, whatever the rows around it."""

    def build(self, *, in_features: int, num_experts: int) -> "SwitchGate":
        """The gate over ``num_experts`` visible experts."""
        return SwitchGate(
            in_features=in_features,
            num_experts=num_experts,
            k=self.k,
            temperature=self.temperature,
            rule=self.in_training.build(),
        )


class SwitchGate(LinearGate):
    """p_BV = S_BV for the experts that a row is given, zero for the others; S = softmax(x_BD · W / temperature).

    A row is given its k most probable experts; in training, what a rule gives it. The weights do not sum to one: by
    the probability as a factor the gate learns, even where it chooses one expert alone.

    Args:
        in_features: D.
        num_experts: V.
        k: experts used per row; all where V is smaller.
        rule: shares out the experts in training.
        temperature: divides the logits.
    """

    is_sparse = True
    sums_to_one = False

    counts: Tensor
    """Rows that trained since they were last asked for: all; those with other experts than they would be served with;
    those without any."""

    def __init__(self, *, in_features: int, num_experts: int, k: int, rule: Rule, temperature: float = 1.0) -> None:
        super().__init__(in_features=in_features, num_experts=num_experts, temperature=temperature)
        self.k = min(k, num_experts)
        self.rule = rule
        self.register_buffer("counts", torch.zeros(3, dtype=torch.long), persistent=False)

    @property
    def num_used(self) -> int:
        """Experts with a weight per row, at most; see ``Gate``."""
        return len(self.weight_VD) if self.training and self.rule.uses_all else self.k

    def take_counts(self) -> tuple[int, int, int]:
        """Rows that trained since the last call: all, rerouted and unrouted ones; see ``counts``."""
        num_rows, num_rerouted, num_unrouted = self.counts.tolist()
        self.counts.zero_()
        return num_rows, num_rerouted, num_unrouted

    def shares(self, logits_BV: Tensor) -> Weighed:
        """Not negative; rows sum to one at most."""
        logits_BV = logits_BV / self.temperature
        p_BV = torch.softmax(logits_BV, dim=1)
        best_BK = p_BV.topk(self.k, dim=1).indices
        is_own_BV = torch.zeros_like(p_BV, dtype=torch.bool).scatter(1, best_BK, True)
        if not self.training:
            return Weighed(torch.where(is_own_BV, p_BV, 0.0), logits_BV)
        is_given_BV = self.rule(p_BV.detach(), self.k)
        is_other_B = (is_given_BV != is_own_BV).any(dim=1)
        is_none_B = ~is_given_BV.any(dim=1)
        self.counts[0] += len(p_BV)
        self.counts[1] += is_other_B.sum()
        self.counts[2] += is_none_B.sum()
        return Weighed(torch.where(is_given_BV, p_BV, 0.0), logits_BV)
