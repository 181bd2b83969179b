"""TokenNetworks: a network for every token, or a mixture of them that learns densely and serves sparsely.

RankMixer: Zhu et al., CIKM 2025, https://arxiv.org/abs/2507.15551, section 3. Where the paper leaves something open:

- While a mixture trains, each row is mixed by one of the two routers, which a coin chooses: so each router gets a
  gradient from the tasks, the sparse one learns what it will serve, and the dense one keeps all experts learning.
- The factor of the loss that makes a router sparse follows how many experts are on: it is 0 where no more than
  ``active`` of them are, and grows with what is above that.
"""

# B rows, T tokens, D width of a token, E experts of a token, K width of the hidden layer, P rows of one expert

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from recmoe.axes import Labels, WeightAxes
from recmoe.moe.gate_use import GateUse


class Router(nn.Module):
    """G_te = relu(r_te · s_t + c_te), which switches the experts of every token on one by one.

    The bias c, 0 at first, is not in the paper. Without it a router can give less, but over tokens whose mean is 0 it
    is hardly ever off for more than half of the rows.

    Args:
        token_names: T.
        width: D.
        num_experts: E.
    """

    def __init__(self, *, token_names: Sequence[str], width: int, num_experts: int) -> None:
        super().__init__()
        self.token_names = tuple(token_names)
        self.weight_TED = nn.Parameter(_uniform((len(token_names), num_experts, width), width))
        self.bias_TE = nn.Parameter(torch.zeros(len(token_names), num_experts))

    def weight_axes(self) -> WeightAxes:
        """Tokens and experts."""
        own, columns = _labels(self.token_names, *self.weight_TED.shape[1:])
        return {"weight_TED": (*own, columns), "bias_TE": own}

    def forward(self, s_BTD: Tensor) -> Tensor:
        """G_BTE, in float32 or wider, as gates are."""
        with torch.autocast(s_BTD.device.type, enabled=False):
            logits_BTE = torch.einsum("btd,ted->bte", s_BTD.to(self.weight_TED.dtype), self.weight_TED)
            return torch.relu(logits_BTE + self.bias_TE)


class BlockOutput(NamedTuple):
    """What the networks of a block give."""

    v_BTD: Tensor
    losses: Sequence[Tensor] = ()
    """Of a mixture, the loss that makes the sparse router sparse."""
    use: Callable[[int], GateUse] | None = None
    """Of a mixture, from its level to how the tokens weighted their networks."""


class TokenNetworks(nn.Module):
    """Every token has a network, or a mixture of them, of its own; equations 5-8 and 9-11::

        v_t = W2_t · gelu(W1_t · s_t + b1_t) + b2_t                             of one network
        v_t = Σ_e G_te · [W2_te · gelu(W1_te · s_t + b1_te) + b2_te],     G of a ``Router``

    A mixture has two routers. Rows that are ranked are mixed by the sparse one, and only the networks that it
    switches on are computed.

    Args:
        token_names: T.
        width: D.
        hidden: K.
        num_experts: E.
        active: share of the networks of a row that the sparse router comes down to.
    """

    def __init__(self, *, token_names: Sequence[str], width: int, hidden: int, num_experts: int, active: float) -> None:
        super().__init__()
        self.token_names = tuple(token_names)
        self.num_experts = num_experts
        self.active = active
        sizes = (len(token_names), num_experts)
        self.in_TEKD = nn.Parameter(_uniform((*sizes, hidden, width), width))
        self.in_TEK = nn.Parameter(_uniform((*sizes, hidden), width))
        self.out_TEDK = nn.Parameter(_uniform((*sizes, width, hidden), hidden))
        self.out_TED = nn.Parameter(_uniform((*sizes, width), hidden))
        self.dense: Router | None = None
        self.sparse: Router | None = None
        if num_experts > 1:
            self.dense = Router(token_names=token_names, width=width, num_experts=num_experts)
            self.sparse = Router(token_names=token_names, width=width, num_experts=num_experts)

    def weight_axes(self) -> WeightAxes:
        """Tokens and experts; the columns of a token hold parts of all of them."""
        own, columns = _labels(self.token_names, self.num_experts, self.out_TED.shape[2])
        return {
            "in_TEKD": (*own, None, columns),
            "in_TEK": (*own, None),
            "out_TEDK": (*own, columns, None),
            "out_TED": (*own, columns),
        }

    def forward(self, s_BTD: Tensor) -> BlockOutput:
        """v_BTD, and what there is to say of a mixture."""
        if self.dense is None or self.sparse is None:
            return BlockOutput(self._all(s_BTD, None))
        sparse_BTE = self.sparse(s_BTD)
        above = ((sparse_BTE > 0).float().mean() / self.active - 1.0).clamp(min=0.0)
        loss = above * sparse_BTE.sum(dim=(1, 2)).mean()
        if not self.training:
            return BlockOutput(self._chosen(s_BTD, sparse_BTE), (loss,), partial(self._use, s_BTD, sparse_BTE))
        is_dense_B = torch.rand(s_BTD.shape[0], 1, 1, device=s_BTD.device) < 0.5
        weights_BTE = torch.where(is_dense_B, self.dense(s_BTD), sparse_BTE)
        return BlockOutput(self._all(s_BTD, weights_BTE), (loss,), partial(self._use, s_BTD, weights_BTE))

    def _use(self, s_BTD: Tensor, weights_BTE: Tensor, level: int) -> GateUse:
        """Every token is a gate that sees its own networks."""
        num_tokens = len(self.token_names)
        visible_TT = torch.eye(num_tokens, dtype=torch.bool, device=s_BTD.device)
        visible_GE = visible_TT.repeat_interleave(self.num_experts, dim=1)
        return GateUse(
            level=level,
            gates=tuple(f"token {name}" for name in self.token_names),
            experts=self._expert_names(),
            weights_BGE=weights_BTE.flatten(1).unsqueeze(1) * visible_GE,
            visible_GE=visible_GE,
            sums_to_one=False,
            outputs=partial(self._outputs_of_first_rows, s_BTD),
        )

    def _expert_names(self) -> tuple[str, ...]:
        return tuple(f"{name}.{expert}" for name in self.token_names for expert in range(self.num_experts))

    def _outputs_of_first_rows(self, s_BTD: Tensor, num_rows: int) -> Mapping[str, Tensor]:
        """y_BD of every network on the first rows, by name."""
        s_BTD = s_BTD[:num_rows].detach().to(self.in_TEKD.dtype)
        hidden_BTEK = functional.gelu(torch.einsum("btd,tekd->btek", s_BTD, self.in_TEKD) + self.in_TEK)
        y_BTED = torch.einsum("btek,tedk->bted", hidden_BTEK, self.out_TEDK) + self.out_TED
        return dict(zip(self._expert_names(), y_BTED.flatten(1, 2).unbind(1), strict=True))

    def _all(self, s_BTD: Tensor, weights_BTE: Tensor | None) -> Tensor:
        """All networks on all rows, a product per layer: that of the second adds up the networks."""
        num_experts = self.num_experts
        first_TBK = torch.baddbmm(
            self.in_TEK.flatten(1).unsqueeze(1), s_BTD.transpose(0, 1), self.in_TEKD.flatten(1, 2).transpose(1, 2)
        )
        hidden_TBK = functional.gelu(first_TBK)
        bias_TBD: Tensor = self.out_TED
        if weights_BTE is not None:
            weights_TBE = weights_BTE.transpose(0, 1).to(hidden_TBK.dtype)
            hidden_TBK = (torch.unflatten(hidden_TBK, 2, (num_experts, -1)) * weights_TBE.unsqueeze(3)).flatten(2)
            bias_TBD = torch.bmm(weights_TBE, self.out_TED.to(weights_TBE.dtype))
        second_TKD = self.out_TEDK.permute(0, 1, 3, 2).flatten(1, 2)
        return torch.baddbmm(bias_TBD, hidden_TBK, second_TKD).transpose(0, 1)

    def _chosen(self, s_BTD: Tensor, weights_BTE: Tensor) -> Tensor:
        """The same from the networks alone that have a weight in a row."""
        num_rows, num_tokens, width = s_BTD.shape
        pairs = weights_BTE.detach().permute(1, 2, 0).nonzero()
        place_N = pairs[:, 0] * self.num_experts + pairs[:, 1]
        counts: list[int] = torch.bincount(place_N, minlength=num_tokens * self.num_experts).tolist()
        pieces = []
        for place, row_P in enumerate(torch.split(pairs[:, 2], counts)):
            if not len(row_P):
                continue
            token, expert = divmod(place, self.num_experts)
            hidden_PK = functional.gelu(
                functional.linear(s_BTD[row_P, token], self.in_TEKD[token, expert], self.in_TEK[token, expert])
            )
            v_PD = functional.linear(hidden_PK, self.out_TEDK[token, expert], self.out_TED[token, expert])
            pieces.append(weights_BTE[row_P, token, expert].unsqueeze(1).to(v_PD.dtype) * v_PD)
        if not pieces:
            return torch.zeros_like(s_BTD)
        v_PD = torch.cat(pieces)
        empty_ND = v_PD.new_zeros(num_rows * num_tokens, width)
        return empty_ND.index_add(0, pairs[:, 2] * num_tokens + pairs[:, 0], v_PD).view(num_rows, num_tokens, width)


def _uniform(sizes: Sequence[int], num_inputs: int) -> Tensor:
    bound = 1.0 / math.sqrt(num_inputs)
    return torch.empty(*sizes).uniform_(-bound, bound)


def _labels(token_names: Sequence[str], num_experts: int, width: int) -> tuple[tuple[Labels, Labels], Labels]:
    """What tokens and experts, and the columns of a token, stand for; see ``recmoe.axes``."""
    tokens = tuple(token_names)
    return (tokens, tuple(str(expert) for expert in range(num_experts))), tuple((tokens, at) for at in range(width))
