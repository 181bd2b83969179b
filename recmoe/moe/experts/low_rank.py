"""Low-rank experts: multi-layer perceptrons whose weights are products of two thin matrices."""

# B rows, D input width, O width of a layer, R rank

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from recmoe.moe.experts.stack import SeparateKind
from recmoe.moe.linear import SidedInput, linear


class LowRankExpert(nn.Module):
    """y = relu(U · (V · x) + b), layer by layer: R · (D + O) weights instead of D · O.

    Args:
        in_features: D.
        hidden: width of each layer.
        rank: R.
        dropout: share of activations dropped in training.
    """

    def __init__(self, *, in_features: int, hidden: Sequence[int], rank: int, dropout: float) -> None:
        super().__init__()
        widths = list(pairwise((in_features, *hidden)))
        self.downs = nn.ModuleList(nn.Linear(before, rank, bias=False) for before, _ in widths)
        self.ups = nn.ModuleList(nn.Linear(rank, after) for _, after in widths)
        self.dropout = dropout

    def forward(self, x: Tensor | SidedInput) -> Tensor:
        """y_BH."""
        for down, up in zip(self.downs, self.ups, strict=True):
            assert isinstance(down, nn.Linear)
            x = functional.dropout(functional.relu(up(linear(x, down.weight))), self.dropout, self.training)
        assert isinstance(x, Tensor)
        return x


class LowRankExpertConfig(SeparateKind):
    """A multi-layer perceptron of thin matrices: many experts for the price of few."""

    kind: Literal["low_rank"] = "low_rank"
    rank: PositiveInt = 32
    """Width between the two matrices of a layer."""

    def expert(self, *, in_features: int, hidden: Sequence[int], dropout: float) -> LowRankExpert:
        """One expert; see ``SeparateKind``."""
        return LowRankExpert(in_features=in_features, hidden=hidden, rank=self.rank, dropout=dropout)
