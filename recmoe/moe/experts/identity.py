"""Identity experts: the input goes on as it is, or through one matrix where the widths differ."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from recmoe.moe.experts.stack import SeparateKind
from recmoe.moe.linear import SidedInput, linear, rows_of


class IdentityExpert(nn.Module):
    """y = x where x is H wide, else W · x: a way past the other experts, as in residual networks.

    He et al., CVPR 2016, https://arxiv.org/abs/1512.03385, equations 1 and 2.

    Args:
        in_features: D.
        out_features: H.
    """

    def __init__(self, *, in_features: int, out_features: int) -> None:
        super().__init__()
        self.map = None if in_features == out_features else nn.Linear(in_features, out_features, bias=False)

    def forward(self, x: Tensor | SidedInput) -> Tensor:
        """y_BH."""
        return rows_of(x) if self.map is None else linear(x, self.map.weight)


class IdentityExpertConfig(SeparateKind):
    """The input itself; through one matrix where it is not as wide as the other experts."""

    kind: Literal["identity"] = "identity"

    def expert(self, *, in_features: int, hidden: Sequence[int], dropout: float) -> IdentityExpert:  # noqa: ARG002
        """One expert; see ``SeparateKind``."""
        return IdentityExpert(in_features=in_features, out_features=hidden[-1])
