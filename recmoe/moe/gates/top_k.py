"""Top-k gate: each row uses its k best experts, and only those are computed.

Shazeer et al., ICLR 2017, https://arxiv.org/abs/1701.06538, equations 3 and 5, without the noise.
"""

# B rows, D input width, V visible experts, K experts chosen

from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from recmoe.axes import EXPERTS, WeightAxes
from recmoe.moe.gates.gate import Detail, GateKind, Weighed
from recmoe.moe.gates.softmax import LinearGate, shares_of_chosen


class TopKGateConfig(GateKind):
    """Shares for the k best visible experts of each row; the others are not computed."""

    details: ClassVar[frozenset[Detail]] = frozenset({"logits", "bias"})
    kind: Literal["top_k"] = "top_k"
    k: PositiveInt = 2
    """Experts used per row and gate; all of them where a gate sees fewer."""
    temperature: PositiveFloat = 1.0
    """Divides the logits: above 1 the shares are more even, below 1 more decided."""

    def build(self, *, in_features: int, num_experts: int) -> "TopKGate":
        """The gate over ``num_experts`` visible experts."""
        return TopKGate(in_features=in_features, num_experts=num_experts, k=self.k, temperature=self.temperature)


class TopKGate(LinearGate):
    """p_BV = softmax over the k largest of x_BD · W / temperature; zero for the other experts.

    With a bias it chooses the k largest of softmax(x_BD · W / temperature) + bias_V, and weights them as before:
    Wang et al. 2024, https://arxiv.org/abs/2408.15664, with scores that are a softmax.

    Args:
        in_features: D.
        num_experts: V.
        k: experts used per row; all where V is smaller.
        temperature: divides the logits.
    """

    sums_to_one = True
    is_sparse = True
    bias_V: Tensor | None

    def __init__(self, *, in_features: int, num_experts: int, k: int, temperature: float = 1.0) -> None:
        super().__init__(in_features=in_features, num_experts=num_experts, temperature=temperature)
        self.num_used = min(k, num_experts)
        self.register_buffer("bias_V", None)

    def take_bias(self) -> None:
        """Have a bias, 0 at first; see ``TakesBias``."""
        self.bias_V = self.weight_VD.new_zeros(len(self.weight_VD))

    def weight_axes(self) -> WeightAxes:
        """The experts that it sees; see ``Gate``."""
        of_bias: WeightAxes = {} if self.bias_V is None else {"bias_V": (EXPERTS,)}
        return {"weight_VD": (EXPERTS, None), **of_bias}

    def shares(self, logits_BV: Tensor) -> Weighed:
        """Not negative; rows sum to one, at most k of a row above zero."""
        logits_BV = logits_BV / self.temperature
        scores_BV = logits_BV.detach()
        if self.bias_V is not None:
            scores_BV = torch.softmax(scores_BV, dim=1) + self.bias_V
        chosen_BK = scores_BV.topk(self.num_used, dim=1).indices
        return Weighed(shares_of_chosen(logits_BV, chosen_BK), logits_BV, bias_V=self.bias_V)
