"""Gated linear units as experts: every layer decides itself which of its units speak.

Dauphin et al., ICML 2017, https://arxiv.org/abs/1612.08083, equation 1.
"""

# B rows, D input width, O width of a layer

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from recmoe.moe.experts.stack import SeparateKind
from recmoe.moe.linear import SidedInput, linear


class GatedExpert(nn.Module):
    """y = (W · x + b) ⊗ σ(V · x + c), layer by layer.

    Args:
        in_features: D.
        hidden: width of each layer.
        dropout: share of activations dropped in training.
    """

    def __init__(self, *, in_features: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        # Both matrices of a layer are one product: values first, then gates.
        self.layers = nn.ModuleList(nn.Linear(before, 2 * after) for before, after in pairwise((in_features, *hidden)))
        self.dropout = dropout

    def forward(self, x: Tensor | SidedInput) -> Tensor:
        """y_BH."""
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            value_BO, gate_BO = linear(x, layer.weight, layer.bias).chunk(2, dim=1)
            x = functional.dropout(value_BO * torch.sigmoid(gate_BO), self.dropout, self.training)
        assert isinstance(x, Tensor)
        return x


class GatedExpertConfig(SeparateKind):
    """A network of gated linear units; a layer costs twice an MLP's."""

    kind: Literal["gated"] = "gated"

    def expert(self, *, in_features: int, hidden: Sequence[int], dropout: float) -> GatedExpert:
        """One expert; see ``SeparateKind``."""
        return GatedExpert(in_features=in_features, hidden=hidden, dropout=dropout)
