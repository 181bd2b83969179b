"""PEER: an expert that is a pool of very many neurons, of which a row retrieves the few whose keys suit it.

Parameter efficient expert retrieval: He 2024, https://arxiv.org/abs/2407.04153, section 2, algorithm 1; product keys:
Lample et al., NeurIPS 2019, https://arxiv.org/abs/1907.05242, section 3.1.
"""

# B rows, D input width, H output width, M heads, K neurons that a head retrieves, S keys of a half, N = S² neurons,
# Q width of half a query

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import PositiveInt, field_validator
from torch import Tensor, nn
from torch.nn import functional

from recmoe.moe.experts.stack import SeparateKind
from recmoe.moe.gates.softmax import gate_logits
from recmoe.moe.linear import SidedInput, rows_of


class PeerExpert(nn.Module):
    """y = Σ_m Σ_i g_m[i] · relu(u_i · x) · v_i, over the K neurons i that head m retrieves of N that all heads share::

        g_m = softmax over the retrieved i of q_m · k_i,      q_m = LayerNorm(W_m · x)

    The key of neuron i = a · S + c is the concatenation of key a of the first half and key c of the second, so that
    q · k_i is the sum of two numbers. The K best of S in each half hold the K best of all N = S² among their K² pairs:
    a row costs 2 · S products with keys in place of N.

    Example: S = 3 keys a half and K = 2, with the scores of both halves::

            first  = [.1 .9 .5]        best two: 1, 2       pairs: 1·3+0 = 1.7   1·3+2 = 1.5
            second = [.8 .2 .6]        best two: 0, 2              2·3+0 = 1.3   2·3+2 = 1.1

            retrieved of nine: 3 and 5

    The paper has batch normalisation of queries, so that neurons are used more evenly; there a row depends on its
    neighbours while it trains. Here each half of a query is normalised by itself. The paper leaves the activation open.

    Args:
        in_features: D.
        out_features: H.
        num_neurons: N, a square.
        num_heads: M.
        k: K; S where that is smaller.
        query: 2 · Q, even.
        dropout: share of outputs dropped in training.
    """

    def __init__(
        self,
        *,
        in_features: int,
        out_features: int,
        num_neurons: int,
        num_heads: int,
        k: int,
        query: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_keys = math.isqrt(num_neurons)
        assert self.num_keys**2 == num_neurons, "keys of two halves make a square"
        assert query % 2 == 0, "a query has two halves"
        self.num_heads = num_heads
        self.k = min(k, self.num_keys)
        self.query = nn.Linear(in_features, num_heads * query, bias=False)
        self.norm = nn.LayerNorm(query // 2)
        bound = 1.0 / math.sqrt(query // 2)
        self.keys_2SQ = nn.Parameter(torch.empty(2, self.num_keys, query // 2).uniform_(-bound, bound))
        bound = 1.0 / math.sqrt(in_features)
        self.down_ND = nn.Parameter(torch.empty(num_neurons, in_features).uniform_(-bound, bound))
        # As much as a layer that is as wide as what a row retrieves.
        bound = 1.0 / math.sqrt(num_heads * self.k)
        self.up_NH = nn.Parameter(torch.empty(num_neurons, out_features).uniform_(-bound, bound))
        self.dropout = dropout

    def forward(self, x: Tensor | SidedInput) -> Tensor:
        """y_BH."""
        scores_BMK, neuron_BMK = self.retrieve(x)
        x_BD = rows_of(x)
        # Head by head: what is gathered is as large as K inputs.
        products_BMK = torch.stack(
            [
                torch.einsum("bd,bkd->bk", x_BD, functional.embedding(neuron_BK, self.down_ND))
                for neuron_BK in neuron_BMK.unbind(1)
            ],
            dim=1,
        )
        weights_BMK = torch.softmax(scores_BMK, dim=2) * functional.relu(products_BMK)
        # Nothing is gathered, and no table cast: sums are made in the type of the weights.
        y_BH = functional.embedding_bag(
            neuron_BMK.flatten(1),
            self.up_NH,
            per_sample_weights=weights_BMK.flatten(1).to(self.up_NH.dtype),
            mode="sum",
        )
        return functional.dropout(y_BH.to(products_BMK.dtype), self.dropout, self.training)

    def retrieve(self, x: Tensor | SidedInput) -> tuple[Tensor, Tensor]:
        """q · k of what every head retrieves, the best first, and which neurons these are, int64: both [B, M, K]."""
        projected_BQ = gate_logits(x, self.query.weight)
        # As with gates: in bfloat16 near-equal scores are equal.
        with torch.autocast(projected_BQ.device.type, enabled=False):
            query_BM2Q = self.norm(torch.unflatten(projected_BQ, 1, (self.num_heads, 2, -1)))
            scores_BM2S = torch.einsum("bmhq,hsq->bmhs", query_BM2Q, self.keys_2SQ)
        return product_top_k(scores_BM2S, self.k)


def product_top_k(halves_BM2S: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest sums of one number of each half, and their places a · S + c in the square; k is at most S."""
    best_BM2K, place_BM2K = halves_BM2S.topk(k, dim=3)
    first_BMK, second_BMK = best_BM2K.unbind(2)
    pairs_BMP = (first_BMK.unsqueeze(3) + second_BMK.unsqueeze(2)).flatten(2)
    sums_BMK, pair_BMK = pairs_BMP.topk(k, dim=2)
    first_place_BMK, second_place_BMK = place_BM2K.unbind(2)
    row_BMK = first_place_BMK.gather(2, pair_BMK // k)
    column_BMK = second_place_BMK.gather(2, pair_BMK % k)
    return sums_BMK, row_BMK * halves_BM2S.shape[3] + column_BMK


class PeerExpertConfig(SeparateKind):
    """A pool of very many neurons, of which a row retrieves a few by product keys (PEER)."""

    kind: Literal["peer"] = "peer"
    num_neurons: PositiveInt = 4096
    """Neurons of one expert, a square; the paper has 1,048,576. All are stored, moved by the optimizer and saved."""
    num_heads: PositiveInt = 8
    """Queries of a row, each of which retrieves its own neurons."""
    k: PositiveInt = 16
    """Neurons that a query retrieves; as many as a half has keys, the root of their number, where that is less."""
    query: PositiveInt = 32
    """Width of a query, even: half of it is compared with keys of either half."""

    @field_validator("num_neurons")
    @classmethod
    def _is_square(cls, num_neurons: int) -> int:
        root = math.isqrt(num_neurons)
        if root**2 != num_neurons:
            raise ValueError(f"neurons lie in a square, and {num_neurons} is none; set {root**2} or {(root + 1) ** 2}")
        return num_neurons

    @field_validator("query")
    @classmethod
    def _has_halves(cls, query: int) -> int:
        if query % 2:
            raise ValueError(f"a query has two halves of one width, and {query} is odd; set it to {query + 1}")
        return query

    def expert(self, *, in_features: int, hidden: Sequence[int], dropout: float) -> PeerExpert:
        """One expert; see ``SeparateKind``."""
        return PeerExpert(
            in_features=in_features,
            out_features=hidden[-1],
            num_neurons=self.num_neurons,
            num_heads=self.num_heads,
            k=self.k,
            query=self.query,
            dropout=dropout,
        )
