"""Cross networks as experts: products of features, one degree more with every layer.

DCN-V2: Wang et al., WWW 2021, https://arxiv.org/abs/2008.13535, equation 1; low rank: equation 2.
"""

# B rows, D input width, R rank, H expert width

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from recmoe.moe.experts.stack import SeparateKind
from recmoe.moe.linear import SidedInput, rows_of


class CrossExpert(nn.Module):
    """x_{l+1} = x_0 ⊙ (W_l · x_l + b_l) + x_l, then one matrix to the width of an expert.

    With a rank, W_l = U_l · V_l of that rank.

    Args:
        in_features: D.
        out_features: H.
        num_layers: the degree of the products is one more.
        rank: R; None for full matrices.
        dropout: share of outputs dropped in training.
    """

    def __init__(
        self, *, in_features: int, out_features: int, num_layers: int, rank: int | None, dropout: float
    ) -> None:
        super().__init__()
        down = in_features if rank is None else rank
        self.downs = nn.ModuleList(
            nn.Linear(in_features, down, bias=False) for _ in range(num_layers if rank is not None else 0)
        )
        self.ups = nn.ModuleList(nn.Linear(down, in_features) for _ in range(num_layers))
        self.map = nn.Linear(in_features, out_features)
        self.dropout = dropout

    def forward(self, x: Tensor | SidedInput) -> Tensor:
        """y_BH."""
        first_BD = rows_of(x)
        crossed_BD = first_BD
        for index, up in enumerate(self.ups):
            inner = self.downs[index](crossed_BD) if self.downs else crossed_BD
            crossed_BD = first_BD * up(inner) + crossed_BD
        return functional.dropout(torch.relu(self.map(crossed_BD)), self.dropout, self.training)


class CrossExpertConfig(SeparateKind):
    """A cross network (DCN-V2), and one matrix with ReLU to the width of an expert."""

    kind: Literal["cross"] = "cross"
    num_layers: PositiveInt = 2
    """Cross layers; the highest degree of a product is one more."""
    rank: PositiveInt | None = None
    """Rank of a layer's matrix; full by default."""

    def expert(self, *, in_features: int, hidden: Sequence[int], dropout: float) -> CrossExpert:
        """One expert; see ``SeparateKind``."""
        return CrossExpert(
            in_features=in_features,
            out_features=hidden[-1],
            num_layers=self.num_layers,
            rank=self.rank,
            dropout=dropout,
        )
