"""Tower: one task's head on its shared representation."""

# B rows, H width of the representation, K logits of the task

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from recmoe.axes import WeightAxes
from recmoe.config import Config


class Tower(nn.Module):
    """A multilayer perceptron that ends in the logits of a task.

    Args:
        in_features: H, width of what the architecture gives each task.
        hidden: widths of the hidden layers; none makes the tower linear.
        dropout: share of hidden activations dropped in training.
        logits: names of the K logits, by which those of two models are matched.
    """

    def __init__(self, *, in_features: int, hidden: Sequence[int], dropout: float, logits: Sequence[str]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(in_features, width), nn.ReLU()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            in_features = width
        layers.append(nn.Linear(in_features, len(logits)))
        self.layers = nn.Sequential(*layers)
        self.logits = tuple(logits)

    def weight_axes(self) -> WeightAxes:
        """The rows of the last layer are the logits."""
        last = f"layers.{len(self.layers) - 1}"
        return {f"{last}.weight": (self.logits, None), f"{last}.bias": (self.logits,)}

    def begin_at_zero(self) -> None:
        """Make every logit 0, whatever the representation: what a task knows before it has learned anything."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, h_BH: Tensor) -> Tensor:
        """logits_BK."""
        logits_BK: Tensor = self.layers(h_BH)
        return logits_BK


class TowerConfig(Config):
    """The head of each task."""

    hidden: tuple[PositiveInt, ...] = (64,)
    """Widths of the hidden layers; an empty list makes the tower linear."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of hidden activations dropped in training."""

    def build(self, *, in_features: int, logits: Sequence[str]) -> Tower:
        """A tower on representations of width ``in_features``, for a task with these logits."""
        return Tower(in_features=in_features, hidden=self.hidden, dropout=self.dropout, logits=logits)
