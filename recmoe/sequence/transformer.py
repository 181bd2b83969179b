"""HistoryTransformer: a causal transformer over a history, and attention of the candidate to its states.

SASRec: Kang and McAuley, ICDM 2018, https://arxiv.org/abs/1808.09781, section III.B; layers with the norm in front as
in Xiong et al., ICML 2020, https://arxiv.org/abs/2002.04745; relative biases of position and time as in HSTU, Zhai et
al., ICML 2024, https://arxiv.org/abs/2402.17152, section 3.
"""

# R requests, L entries of a history, C candidates, D width of an entry, Q width of a query, S width of a state,
# N heads, K width of a head

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from recmoe.config import Config
from recmoe.sequence.encoded_history import EncodedHistory, masked_softmax, without_padding
from recmoe.sequence.recency import RecencyBias


class TransformerConfig(Config):
    """Entries read those before them, and the candidate reads what they have made of it."""

    kind: Literal["transformer"] = "transformer"
    reads_candidate: ClassVar[bool] = True
    width: PositiveInt = 32
    """Floats of a state."""
    heads: PositiveInt = 2
    """Parts of a state that attend each for itself."""
    layers: PositiveInt = 2
    """Self-attentions, one after the other."""
    hidden: PositiveInt = 64
    """Hidden units of the network that follows every self-attention."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not fit together, as (key path, message)."""
        if self.width % self.heads:
            yield "heads", f"a width of {self.width} does not fall into {self.heads} heads of equal width"

    def width_of(self, in_features: int) -> int:
        """Floats of the vector that becomes of entries of such a width."""
        del in_features
        return self.width

    def build(self, *, in_features: int, query_features: int, max_length: int, has_ages: bool) -> "HistoryTransformer":
        """The encoder of histories of such a width and length, for candidates of such a width."""
        return HistoryTransformer(
            in_features=in_features,
            query_features=query_features,
            max_length=max_length,
            has_ages=has_ages,
            width=self.width,
            num_heads=self.heads,
            num_layers=self.layers,
            hidden=self.hidden,
        )


class HistoryTransformer(nn.Module):
    """States of a history by causal self-attention; the candidate's vector by attention to them::

        x = W · norm(history)
        x = x + attention(norm(x));   x = x + network(norm(x))          every layer
        vector[c] = W_o · Σ_l softmax_l(q[c] · k[l] / sqrt(K) + bias[l]) · v[l]

    where q is a map of norm(candidate), and k and v are maps of norm(x).

    Every attention adds to its scores a bias per head for how many entries, and how much time, lie between reader
    and entry.

    Args:
        in_features: D.
        query_features: Q.
        max_length: entries with a bias of position of their own; those further back share the last.
        has_ages: whether the ages of the entries are known.
        width: S.
        num_heads: N; divides S.
        num_layers: self-attentions.
        hidden: hidden units of the networks.
    """

    reads_candidate = True

    def __init__(
        self,
        *,
        in_features: int,
        query_features: int,
        max_length: int,
        has_ages: bool,
        width: int,
        num_heads: int,
        num_layers: int,
        hidden: int,
    ) -> None:
        super().__init__()
        self.out_features = width
        self._num_heads = num_heads
        # Fresh rows of tables are small, and what is not normalised would have no say beside the constants.
        self.entry_norm = nn.LayerNorm(in_features)
        self.query_norm = nn.LayerNorm(query_features)
        self.into = nn.Linear(in_features, width)
        self.layers = nn.ModuleList(
            _Layer(width=width, num_heads=num_heads, hidden=hidden, max_length=max_length, has_ages=has_ages)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.key_value = nn.Linear(width, 2 * width)
        self.query = nn.Linear(query_features, width)
        self.bias = RecencyBias(num_heads=num_heads, max_length=max_length, has_ages=has_ages)
        # Without a constant, so that an empty history stays zero.
        self.out = nn.Linear(width, width, bias=False)

    def encode(self, history_RLD: Tensor, mask_RL: Tensor, ages_RL: Tensor | None = None) -> EncodedHistory:
        """Keys, values and biases of the states."""
        if ages_RL is not None:
            ages_RL = ages_RL.masked_fill(~mask_RL, 0.0)
        x_RLS = self.into(self.entry_norm(without_padding(history_RLD, mask_RL)))
        for layer in self.layers:
            x_RLS = layer(x_RLS, mask_RL, ages_RL)
        key_RLS, value_RLS = self.key_value(self.norm(x_RLS)).chunk(2, dim=-1)
        newer_RL = mask_RL.flip(1).cumsum(1).flip(1) - mask_RL.long()
        bias_RLN = self.bias(newer_RL, ages_RL)
        return EncodedHistory((key_RLS, value_RLS, bias_RLN), mask_RL)

    def attend(self, encoded: EncodedHistory, query_CQ: Tensor | None, request_C: Tensor | None) -> Tensor:
        """vector_CS, in float32."""
        assert query_CQ is not None, "the transformer's states are read by a candidate"
        (key_CLS, value_CLS, bias_CLN), mask_CL = encoded.of_candidates(request_C)
        query_CNK = _heads(self.query(self.query_norm(query_CQ)), self._num_heads)
        key_CLNK, value_CLNK = _heads(key_CLS, self._num_heads), _heads(value_CLS, self._num_heads)
        if mask_CL.shape[0] == 1:
            scores_CNL = torch.einsum("cnk,lnk->cnl", query_CNK, key_CLNK[0])
        else:
            scores_CNL = torch.einsum("cnk,clnk->cnl", query_CNK, key_CLNK)
        scores_CNL = scores_CNL.float() / query_CNK.shape[2] ** 0.5 + bias_CLN.transpose(1, 2)
        shares_CNL = masked_softmax(scores_CNL, mask_CL[:, None]).to(value_CLNK.dtype)
        if mask_CL.shape[0] == 1:
            read_CNK = torch.einsum("cnl,lnk->cnk", shares_CNL, value_CLNK[0])
        else:
            read_CNK = torch.einsum("cnl,clnk->cnk", shares_CNL, value_CLNK)
        vector_CS: Tensor = self.out(read_CNK.flatten(1))
        return vector_CS.float()


class _Layer(nn.Module):
    """Causal self-attention and a network, each on what is normalised and added to what was there."""

    def __init__(self, *, width: int, num_heads: int, hidden: int, max_length: int, has_ages: bool) -> None:
        super().__init__()
        self._num_heads = num_heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.bias = RecencyBias(num_heads=num_heads, max_length=max_length, has_ages=has_ages)
        self.out = nn.Linear(width, width)
        self.network_norm = nn.LayerNorm(width)
        self.network = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x_RLS: Tensor, mask_RL: Tensor, ages_RL: Tensor | None) -> Tensor:
        length = x_RLS.shape[1]
        query_RNLK, key_RNLK, value_RNLK = (
            _heads(part, self._num_heads).transpose(1, 2)
            for part in self.query_key_value(self.attention_norm(x_RLS)).chunk(3, dim=-1)
        )
        place_L = torch.arange(length, device=x_RLS.device)
        steps_LL = place_L[:, None] - place_L
        # Padding sees itself: a softmax over nothing is NaN.
        visible_RLL = ((steps_LL >= 0) & mask_RL[:, None]) | (steps_LL == 0)
        seconds_RLL = None if ages_RL is None else ages_RL[:, None] - ages_RL[:, :, None]
        bias_RLLN = self.bias(steps_LL.clamp(min=0), seconds_RLL)
        bias_RNLL = bias_RLLN.movedim(-1, -3).masked_fill(~visible_RLL[:, None], float("-inf"))
        read_RNLK = functional.scaled_dot_product_attention(
            query_RNLK, key_RNLK, value_RNLK, attn_mask=bias_RNLL.to(query_RNLK.dtype)
        )
        x_RLS = x_RLS + self.out(read_RNLK.transpose(1, 2).flatten(2))
        changed_RLS: Tensor = x_RLS + self.network(self.network_norm(x_RLS))
        return changed_RLS


def _heads(x: Tensor, num_heads: int) -> Tensor:
    """The last axis in two: heads, and their floats."""
    return x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)
