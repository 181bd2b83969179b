"""Quantile tasks: a value that a given share of the rows lies below: a delivery time that is kept nine times in ten."""

# B rows, K quantiles, one logit each

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from recmoe.tasks.error import ErrorMeasure, pinball
from recmoe.tasks.level import Level
from recmoe.tasks.mixing import Mixing
from recmoe.tasks.own_label import OwnLabelConfig
from recmoe.tasks.scale import SCALES, Transform
from recmoe.tasks.start import LabelSums, TaskStart
from recmoe.tasks.task import Measure, TaskOutput, TaskRows

LARGEST_EXPONENT = 80.0
"""exp of more than this is no float32."""


class QuantileTask:
    """Quantiles τ_1 < … < τ_K of a value y, on the scale t(y), by the pinball loss (Koenker & Bassett 1978)::

        loss = 1/K · Σ_k max(τ_k · (t(y) − q_k), (τ_k − 1) · (t(y) − q_k)),        prediction t⁻¹(q_served)

    They cannot cross: the first logit is the served one, the others are the logarithms of the steps between neighbours.
    t keeps the order, so a quantile of t(y) is t of the quantile.

    Args:
        quantiles: τ_1 … τ_K, which increase.
        served: place of the one that is predicted.
        transform: t.
    """

    loss_power: Literal[0, 1, 2] = 1
    level: Level | None = None
    mixing: Mixing | None = None

    def __init__(self, *, quantiles: Sequence[float], served: int, transform: Transform) -> None:
        self.quantiles = tuple(quantiles)
        self.served = served
        self.scale = SCALES[transform]
        self.error: ErrorMeasure = pinball(self.quantiles[served])
        # The served one first: its unit is that of the loss. A step is named for the quantiles that it lies between.
        steps = [f"{low:g}-{high:g}" for low, high in zip(self.quantiles, self.quantiles[1:], strict=False)]
        self.logits: tuple[str, ...] = (f"{self.quantiles[served]:g}", *steps)

    def losses(self, rows: TaskRows) -> Tensor:
        """Mean pinball loss of the quantiles, in transformed units; see ``Task``."""
        above_BK = self.scale.to(rows.labels_B)[:, None] - self._on_scale(rows.logits_BK)
        quantiles_K = above_BK.new_tensor(self.quantiles)
        return torch.maximum(quantiles_K * above_BK, (quantiles_K - 1.0) * above_BK).mean(dim=1)

    def imitation(self, rows: TaskRows, teacher_BK: Tensor, temperature: float) -> Tensor:
        """Mean distance of the quantiles, on the scale; see ``Task``."""
        del temperature
        return (self._on_scale(rows.logits_BK) - self._on_scale(teacher_BK)).abs().mean(dim=1)

    def predict(self, logits_BK: Tensor) -> Tensor:
        """The served quantile per row, in the unit of the label; see ``Task``."""
        return self.scale.back(logits_BK[:, 0])

    def measures(self, logits_BK: Tensor, labels_B: Tensor) -> Mapping[str, Tensor]:
        """Pinball loss in the unit of the label, and whether the label lies at or below; see ``Task``."""
        found: dict[str, Tensor] = {}
        for quantile, predicted_B in zip(self.quantiles, self.scale.back(self._on_scale(logits_BK)).T, strict=True):
            found[f"pinball@{quantile:g}"] = pinball(quantile).losses(predicted_B, labels_B)
            found[f"coverage@{quantile:g}"] = (labels_B <= predicted_B).to(labels_B.dtype)
        return found

    def statistics(self, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """The label on its scale; see ``Task``."""
        values_B1 = self.scale.to(labels_B)[:, None]
        return values_B1, torch.ones_like(values_B1)

    def starts(self, sums: LabelSums) -> list[TaskStart]:
        """Those of a normal label, for sums tell no quantiles and a start need only be near; see ``Task``."""
        label = sums.value_start(0)
        places = [label.logit + label.unit * NormalDist().inv_cdf(quantile) for quantile in self.quantiles]
        steps = [math.log(high - low) for low, high in itertools.pairwise(places)]
        return [TaskStart(logit=places[self.served], unit=label.unit), *(TaskStart(logit=step) for step in steps)]

    def _on_scale(self, logits_BK: Tensor) -> Tensor:
        """q_BK on the scale, rising along a row."""
        steps_BK = logits_BK[:, 1:].clamp(max=LARGEST_EXPONENT).exp()
        way_BK = functional.pad(steps_BK.cumsum(dim=1), (1, 0))
        return logits_BK[:, :1] + way_BK - way_BK[:, self.served, None]


Share = Annotated[float, Field(gt=0, lt=1)]


class QuantileTaskConfig(OwnLabelConfig):
    """Quantiles of a real label within the task's space, of which one is predicted."""

    output: ClassVar[TaskOutput] = "quantile"
    measures: ClassVar[Mapping[str, Measure]] = {
        "pinball": Measure("lowest", "Mean pinball loss of a quantile, in the unit of the label."),
        "coverage": Measure("level", "Share of labels at or below a quantile; right where it is the quantile itself."),
    }

    kind: Literal["quantile"] = "quantile"
    label: str
    """Column that holds finite numbers or null; null rows are left out of loss and metrics."""
    quantiles: tuple[Share, ...] = (0.5,)
    """Shares of the labels that lie below, rising: ``[0.1, 0.5, 0.9]``."""
    predicts: Share | None = None
    """The quantile that is ranked by and served, one of ``quantiles``; by default the middle one."""
    transform: Transform = "none"
    """Scale of the loss: the label's own, or sign(y) · log(1 + |y|) for amounts and durations."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not fit together, as (key path, message)."""
        if not self.quantiles or list(self.quantiles) != sorted(set(self.quantiles)):
            yield "quantiles", f"give one quantile or more, rising, got {list(self.quantiles)}"
        elif self.predicts is not None and self.predicts not in self.quantiles:
            yield "predicts", f"{self.predicts:g} is none of the quantiles {list(self.quantiles)}; name it there, too"

    def build(self) -> QuantileTask:
        """Link and loss of this task."""
        middle = (len(self.quantiles) - 1) // 2
        served = middle if self.predicts is None else self.quantiles.index(self.predicts)
        return QuantileTask(quantiles=self.quantiles, served=served, transform=self.transform)
