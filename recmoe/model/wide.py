"""Wide: a linear part over ids and numbers beside the experts.

Wide & Deep: Cheng et al., DLRS 2016, https://arxiv.org/abs/1606.07792, section 3.1.
"""

# B rows, L linear floats of a table's row, F numbers, T' towers

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional

from recmoe.config import Config
from recmoe.features.layout import InputLayout


class Wide(nn.Module):
    """Adds to every logit one weight per id of the row, and one per number::

        wide[b, t] = rate · (Σ_k  linear[id of k in b, t]  +  Σ_f  w[t, f] · number[b, f])

    Of a list of ids, the weights are pooled as its vectors are: summed, or averaged.

    The weights of an id are the last floats of its row in the table, so that one look-up brings both them and its
    vector, and they are sharded, stored and warm-started with it. They start at 0. ``rate`` makes them learn faster
    than the vectors: an adaptive optimizer steps both alike.

    Args:
        num_outputs: T'.
        num_shared, num_own: plain numbers of user and context, and of the item.
        rate: factor of the whole part.
    """

    shared: nn.Parameter | None
    """w of the numbers of user and context, [T', F]; None where there are none."""
    own: nn.Parameter | None
    """w of the item's numbers."""

    def __init__(self, *, num_outputs: int, num_shared: int, num_own: int, rate: float) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        self.rate = rate
        self.shared = nn.Parameter(torch.zeros(num_outputs, num_shared)) if num_shared else None
        self.own = nn.Parameter(torch.zeros(num_outputs, num_own)) if num_own else None

    def forward(self, weights: Sequence[Tensor], numbers_BF: Tensor, *, shared: bool) -> Tensor:
        """wide_BT' of one half of the features, in float32.

        Args:
            weights: per key of the half, what was looked up and pooled: [B, at least T'].
            numbers_BF: the half's plain numbers.
            shared: whether the half is that of user and context.
        """
        terms = [weights_BL[:, : self.num_outputs] for weights_BL in weights]
        matrix_TF = self.shared if shared else self.own
        if matrix_TF is not None:
            # What reaches a logit is computed in float32, as the logits are.
            with torch.autocast(numbers_BF.device.type, enabled=False):
                terms.append(functional.linear(numbers_BF, matrix_TF))
        if not terms:
            return numbers_BF.new_zeros(numbers_BF.shape[0], self.num_outputs)
        return self.rate * torch.stack(terms).sum(dim=0)


class LinearWideConfig(Config):
    """A weight per id and number for every tower: what logistic regression would learn, beside the experts."""

    kind: Literal["linear"] = "linear"
    rate: PositiveFloat = 1.0
    """How much faster than the vectors of their ids the weights learn."""

    def rows(self, layout: InputLayout, *, num_outputs: int) -> InputLayout:
        """The layout of tables whose rows hold the weights too."""
        return layout.with_linear(num_outputs)

    def build(self, *, num_outputs: int, num_shared: int, num_own: int) -> Wide | None:
        """The part for so many towers and numbers."""
        return Wide(num_outputs=num_outputs, num_shared=num_shared, num_own=num_own, rate=self.rate)


class NoWideConfig(Config):
    """Experts alone."""

    kind: Literal["none"] = "none"

    def rows(self, layout: InputLayout, *, num_outputs: int) -> InputLayout:
        """The layout as it is."""
        del num_outputs
        return layout

    def build(self, *, num_outputs: int, num_shared: int, num_own: int) -> Wide | None:
        """No part."""
        del num_outputs, num_shared, num_own
        return None


WideConfig = Annotated[LinearWideConfig | NoWideConfig, Field(discriminator="kind")]
