"""HeadAttention: attention between the tokens of a row, each of which uses a few of many heads.

Mixture of attention heads (MoA): Zhang et al., EMNLP 2022, https://arxiv.org/abs/2210.05144, section 3. Where all heads
are used it is attention between feature fields as in AutoInt: Song et al., CIKM 2019, https://arxiv.org/abs/1810.11921.
"""

# B rows, T tokens, D width of a token, E heads, K heads that a token uses, A width of a head,
# P = T · K queries of a row, N = B · P of all rows, R routed: B · T tokens, or B rows

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from recmoe.axes import WeightAxes
from recmoe.moe.balance.statistics import over_workers
from recmoe.moe.chosen import ChosenPairs
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates.softmax import gate_logits, new_gate_weight

Chooser = Literal["token", "row"]


class HeadLosses(NamedTuple):
    """What keeps a router in order, scalars."""

    balance: Tensor
    """E · Σ_e f_e · P_e: f_e is the share that head e has of all choices, and P_e its mean probability; 1 where both
    are even. Only P has a gradient. While it trains, both are over the rows of all workers."""
    z_loss: Tensor
    """The mean of (log Σ_e exp(logit_e))²."""


class HeadsOutput(NamedTuple):
    """What the heads of a block give, and how its tokens chose them."""

    y_BTD: Tensor
    losses: HeadLosses
    weights_BTK: Tensor
    head_BTK: Tensor

    def use(self, token_names: Sequence[str], num_heads: int, level: int) -> GateUse:
        """Every token is a gate that sees all heads."""
        weights_BTK = self.weights_BTK.float()
        weights_BTE = weights_BTK.new_zeros(*weights_BTK.shape[:2], num_heads)
        return GateUse(
            level=level,
            gates=tuple(f"token {name}" for name in token_names),
            experts=tuple(f"head.{head}" for head in range(num_heads)),
            weights_BGE=weights_BTE.scatter(2, self.head_BTK, weights_BTK),
        )


class HeadAttention(nn.Module):
    """y_t = Σ_e w_te · U_e · Σ_s softmax over s of (Q_e x_t · K x_s / √A) · V x_s, over the K heads e that t uses::

        p_t = softmax(R · x_t)                          probability of each head
        w_te = p_te / Σ of p_t over the heads of t      of the K largest; the sum has no gradient

    Queries and outputs have matrices by head, Q and U; keys and values are computed once for all heads. Only the heads
    that a token uses are computed for it.

    Without a gradient of the sum, the router learns where a token uses one head, too, which then weighs 1.

    Read through the authors' code, https://github.com/yikangshen/MoA, for the paper's text could not be opened. There
    the division by the sum, without its gradient, is switched off, and logits may have noise, which is left out here.

    Args:
        width: D.
        num_heads: E.
        num_used: K.
        head_width: A.
        chosen_by: each token chooses its heads, or the mean of a row's tokens chooses those of all of them.
    """

    def __init__(
        self, *, width: int, num_heads: int, num_used: int, head_width: int, chosen_by: Chooser = "token"
    ) -> None:
        super().__init__()
        assert num_used <= num_heads, "a token uses heads that are there"
        self.num_used = num_used
        self.chosen_by: Chooser = chosen_by
        self.router_ED = new_gate_weight(in_features=width, num_experts=num_heads)
        self.key_value = nn.Linear(width, 2 * head_width, bias=False)
        self.query_EAD = _drawn(num_heads, head_width, width)
        self.out_EDA = _drawn(num_heads, width, head_width)

    def weight_axes(self) -> WeightAxes:
        """Heads."""
        heads = tuple(str(head) for head in range(len(self.router_ED)))
        return {
            "router_ED": (heads, None),
            "query_EAD": (heads, None, None),
            "out_EDA": (heads, None, None),
        }

    def forward(self, x_BTD: Tensor) -> HeadsOutput:
        """y_BTD, what is lost by how the router chooses, and the choice."""
        num_rows, num_tokens, width = x_BTD.shape
        num_queries, head_width = num_tokens * self.num_used, self.query_EAD.shape[1]
        weights_BTK, head_BTK, losses = self.route(x_BTD)
        pairs = ChosenPairs.of(head_BTK.flatten(0, 1), self.query_EAD)
        query_BPA = pairs.of_rows(x_BTD.flatten(0, 1), self.query_EAD).view(num_rows, num_queries, head_width)
        key_BTA, value_BTA = self.key_value(x_BTD).chunk(2, dim=2)
        scores_BPT = torch.bmm(query_BPA, key_BTA.transpose(1, 2)) / math.sqrt(head_width)
        shares_BPT = torch.softmax(scores_BPT, dim=2).to(value_BTA.dtype)
        read_BPA = torch.bmm(shares_BPT, value_BTA)
        made_ND = pairs.of_pairs(read_BPA.flatten(0, 1), self.out_EDA)
        made_BTKD = made_ND.view(num_rows, num_tokens, self.num_used, width)
        y_BTD = (weights_BTK.to(made_BTKD.dtype).unsqueeze(3) * made_BTKD).sum(dim=2)
        return HeadsOutput(y_BTD, losses, weights_BTK, head_BTK)

    def route(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, HeadLosses]:
        """w_BTK in float32, the heads that they belong to, int64 [B, T, K], and the router's losses."""
        num_rows, num_tokens, _ = x_BTD.shape
        routed_RD = x_BTD.flatten(0, 1) if self.chosen_by == "token" else x_BTD.mean(dim=1)
        logits_RE = gate_logits(routed_RD, self.router_ED)
        p_RE = torch.softmax(logits_RE, dim=1)
        p_RK, head_RK = p_RE.topk(self.num_used, dim=1)
        weights_RK = p_RK / p_RK.detach().sum(dim=1, keepdim=True)
        losses = HeadLosses(self._balance(p_RE, head_RK), torch.logsumexp(logits_RE, dim=1).square().mean())
        own = (num_rows, num_tokens if self.chosen_by == "token" else 1, self.num_used)
        of_all = (num_rows, num_tokens, self.num_used)
        return weights_RK.view(own).expand(of_all), head_RK.view(own).expand(of_all), losses

    def _balance(self, p_RE: Tensor, head_RK: Tensor) -> Tensor:
        chosen_E = torch.zeros_like(p_RE).scatter(1, head_RK, 1.0).mean(dim=0) / self.num_used
        means = [chosen_E, p_RE.mean(dim=0)]
        # Workers train in step, and serve or validate each by itself.
        f_E, p_E = over_workers(means) if self.training else means
        return len(f_E) * (f_E * p_E).sum()


def _drawn(num_heads: int, num_outputs: int, num_inputs: int) -> nn.Parameter:
    """Matrices drawn as ``nn.Linear`` draws its weight."""
    bound = 1.0 / math.sqrt(num_inputs)
    return nn.Parameter(torch.empty(num_heads, num_outputs, num_inputs).uniform_(-bound, bound))
