"""Normalised experts: multi-layer perceptrons whose outputs are of one scale, with Swish, which leaves no unit dead.

The experts of HoME: Wang et al., KDD 2025, https://arxiv.org/abs/2408.05430, section 3.1; layer normalisation: Ba et
al. 2016, https://arxiv.org/abs/1607.06450; Swish: Ramachandran et al. 2017, https://arxiv.org/abs/1710.05941.
"""

# B rows, D input width, O width of a layer

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from recmoe.moe.experts.stack import SeparateKind
from recmoe.moe.linear import SidedInput, linear


class NormalizedExpert(nn.Module):
    """y = Swish(Norm(W · x + b)), layer by layer, with Swish(z) = z · σ(z).

    Norm brings the units of a row to mean 0 and variance 1, then scales and shifts each by a learned number. HoME has
    batch normalisation in its place, which brings a unit to mean 0 and variance 1 over the rows of a batch: there a
    row depends on its neighbours while it trains, and is served with averages that no step has trained with. The paper
    names the last layer; here the hidden ones are like it.

    Args:
        in_features: D.
        hidden: width of each layer.
        dropout: share of activations dropped in training.
    """

    def __init__(self, *, in_features: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise((in_features, *hidden)))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in hidden)
        self.dropout = dropout

    def forward(self, x: Tensor | SidedInput) -> Tensor:
        """y_BH."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            assert isinstance(layer, nn.Linear)
            z_BO = linear(x, layer.weight, layer.bias)
            # Under autocast a norm gives float32.
            active_BO = functional.silu(norm(z_BO)).to(z_BO.dtype)
            x = functional.dropout(active_BO, self.dropout, self.training)
        assert isinstance(x, Tensor)
        return x


class NormalizedExpertConfig(SeparateKind):
    """A multi-layer perceptron with layer normalisation and Swish: all experts give numbers of one scale."""

    kind: Literal["normalized"] = "normalized"

    def expert(self, *, in_features: int, hidden: Sequence[int], dropout: float) -> NormalizedExpert:
        """One expert; see ``SeparateKind``."""
        return NormalizedExpert(in_features=in_features, hidden=hidden, dropout=dropout)
