"""Target attention: entries of a history weigh as much as they have to do with the candidate.

DIN: Zhou et al., KDD 2018, https://arxiv.org/abs/1706.06978, equation 3 and section 4.3.
"""

# R requests, L entries of a history, C candidates, D width of an entry, Q width of a query, A width of a hidden layer

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from recmoe.config import Config
from recmoe.sequence.encoded_history import EncodedHistory, masked_softmax, without_padding


class TargetAttentionConfig(Config):
    """A sum of the entries, each weighted by what it has to do with the candidate."""

    kind: Literal["target_attention"] = "target_attention"
    reads_candidate: ClassVar[bool] = True
    hidden: tuple[PositiveInt, ...] = Field(default=(36,), min_length=1)
    """Widths of the hidden layers that turn candidate and entry into a weight."""
    softmax: bool = False
    """Whether weights are shares of one; the paper's are not, so that a long history of interest weighs more."""

    def width_of(self, in_features: int) -> int:
        """Floats of the vector that becomes of entries of such a width."""
        return in_features

    def build(self, *, in_features: int, query_features: int, max_length: int, has_ages: bool) -> "TargetAttention":
        """The encoder of histories of such a width, for candidates of such a width."""
        del max_length, has_ages
        return TargetAttention(
            in_features=in_features, query_features=query_features, hidden=self.hidden, is_softmax=self.softmax
        )


class TargetAttention(nn.Module):
    """Equation 3, with the weight from a small network that reads candidate and entry::

        v[c] = Σ_l  a(q[c], e[l]) · e[l]          a(q, e) = MLP([q, e, q - e, q · e])

    The matrix of the first layer falls into four blocks, so that its products with q are computed once per
    candidate, those with e once per request, and q · e alone is multiplied for every pair::

        W · [q, e, q - e, q · e]  =  (W_q + W_d) · q  +  (W_e - W_d) · e  +  W_p · (q · e)

    Hidden units are PReLUs with a slope each, as the paper's first form has them: Dice would make a row's prediction
    depend on the rows beside it.

    Args:
        in_features: D.
        query_features: Q; where it is not D, a linear map of the candidate comes first.
        hidden: widths of the hidden layers, one at least.
        is_softmax: whether the weights of a history are shares of one.
    """

    reads_candidate = True

    def __init__(self, *, in_features: int, query_features: int, hidden: Sequence[int], is_softmax: bool) -> None:
        super().__init__()
        self.out_features = in_features
        self._is_softmax = is_softmax
        self.query_map = nn.Linear(query_features, in_features, bias=False) if query_features != in_features else None
        self.first = nn.Linear(4 * in_features, hidden[0])
        self.later = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise([*hidden, 1]))
        self.slopes = nn.ParameterList(torch.full((width,), 0.25) for width in hidden)

    def encode(self, history_RLD: Tensor, mask_RL: Tensor, ages_RL: Tensor | None = None) -> EncodedHistory:
        """Entries, and their part of the first layer."""
        del ages_RL
        entries_RLD = without_padding(history_RLD, mask_RL)
        _, of_entry_AD, of_difference_AD, _ = self.first.weight.chunk(4, dim=1)
        return EncodedHistory(
            (entries_RLD, functional.linear(entries_RLD, of_entry_AD - of_difference_AD)),
            mask_RL,
        )

    def attend(self, encoded: EncodedHistory, query_CQ: Tensor | None, request_C: Tensor | None) -> Tensor:
        """vector_CD, in float32."""
        assert query_CQ is not None, "target attention reads the candidate"
        (entries_CLD, hidden_CLA), mask_CL = encoded.of_candidates(request_C)
        query_CD = query_CQ if self.query_map is None else self.query_map(query_CQ)
        of_query_AD, _, of_difference_AD, of_product_AD = self.first.weight.chunk(4, dim=1)
        query_CA = functional.linear(query_CD, of_query_AD + of_difference_AD, self.first.bias)
        product_CLA = functional.linear(query_CD[:, None] * entries_CLD, of_product_AD)
        hidden_CLA = query_CA[:, None] + hidden_CLA + product_CLA
        for slope, linear in zip(self.slopes, self.later, strict=True):
            hidden_CLA = linear(_prelu(hidden_CLA, slope))
        scores_CL = hidden_CLA[..., 0]
        if self._is_softmax:
            weights_CL = masked_softmax(scores_CL, mask_CL)
        else:
            weights_CL = scores_CL.float().masked_fill(~mask_CL, 0.0)
        if entries_CLD.shape[0] == 1:
            return (weights_CL.to(entries_CLD.dtype) @ entries_CLD[0]).float()
        return (weights_CL.to(entries_CLD.dtype)[:, None] @ entries_CLD)[:, 0].float()


def _prelu(x_CLA: Tensor, slope_A: Tensor) -> Tensor:
    """PReLU over the last axis, where torch's takes the second."""
    return functional.prelu(x_CLA.flatten(0, 1), slope_A.to(x_CLA.dtype)).view_as(x_CLA)
