"""Regression tasks: watch time, spend, rating."""

# B rows, K = 1 or 2 logits: z, and d where a mean is predicted through a logarithm

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional

from recmoe.tasks.error import GAMMA_DEVIANCE, ErrorMeasure, squared_error_on
from recmoe.tasks.level import Level
from recmoe.tasks.mixing import VALUES, Experts, Mixing
from recmoe.tasks.own_label import OwnLabelConfig
from recmoe.tasks.scale import SCALES, Transform
from recmoe.tasks.start import LabelSums, TaskStart
from recmoe.tasks.task import Measure, TaskOutput, TaskRows

MEAN_SHARE = 0.2
"""Factor of what is learned for the mean: small, so that the median is learned as it would be alone."""
LARGEST_EXPONENT = 10.0
"""Amounts of more than e¹⁰ times what was expected pull no harder than that: one wrong row is not the whole batch."""


class RegressionTask:
    """A real value y, learned as t(y) by squared or Huber error: loss(z − t(y)), prediction t⁻¹(z).

    ``log1p`` is t(y) = sign(y) · log(1 + |y|), which also lets negative values through. t⁻¹(z) then lies near the
    median, below the mean: sums of predictions would be too small. So a second logit learns by how much,
    from the residual r = t(y) − z, in which z is held fixed::

        loss(z − t(y)) + 1/5 · (exp(r − d) − (r − d) − 1),        mean  t⁻¹(z + d),        median  t⁻¹(z)

    The second term is a share of the gamma deviance of 1 + y with mean exp(z + d), least where exp(d) is the mean of
    exp(r) among rows that look alike. Where d is one number for all rows, exp(d) is the smearing factor of Duan, JASA
    1983, https://doi.org/10.1080/01621459.1983.10478017, which needs no distribution of the residuals. Where z is
    negative, r and what is added to z change their signs.

    Where experts predict each by themselves, the first term is that of a mixture of densities around their z_e, normal
    ones of deviation s, or those that Huber's error stands for; z and d are the means of theirs::

        −τ · log Σ_e p_e · exp(−loss(z_e − t(y)) / τ),        τ = 2s² for squares, s² for Huber's

    Args:
        transform: t, the scale on which the error is measured.
        loss: ``mse`` is the squared error; ``huber`` is d²/2 up to ``huber_delta``, linear beyond.
        huber_delta: where Huber turns linear, in transformed units.
        has_mean: whether d is learned.
    """

    loss_power: Literal[0, 1, 2] = 2
    mixing: Mixing | None = VALUES

    def __init__(
        self, *, transform: Transform, loss: Literal["mse", "huber"], huber_delta: float, has_mean: bool
    ) -> None:
        self.scale = SCALES[transform]
        self.loss = loss
        self.huber_delta = huber_delta
        self.has_mean = has_mean
        self.logits: tuple[str, ...] = ("", "mean") if has_mean else ("",)
        self.level = Level(logit=1, offset=1.0) if has_mean else None
        self.error: ErrorMeasure = GAMMA_DEVIANCE if has_mean else squared_error_on(self.scale)

    def losses(self, rows: TaskRows) -> Tensor:
        """Error per row, in transformed units; see ``Task``."""
        z_B, target_B = rows.logits_BK[:, 0], self.scale.to(rows.labels_B)
        losses_B = self._errors(z_B, target_B) if rows.experts is None else self._of_mixture(rows.experts, target_B)
        if not self.has_mean:
            return losses_B
        residual_B = (target_B - z_B.detach()) * _sign(z_B) - rows.logits_BK[:, 1]
        capped_B = residual_B.clamp(max=LARGEST_EXPONENT)
        return losses_B + MEAN_SHARE * (capped_B.exp() * (1.0 + residual_B - capped_B) - residual_B - 1.0)

    def _errors(self, z: Tensor, target_B: Tensor) -> Tensor:
        target = target_B.expand_as(z)
        if self.loss == "huber":
            return functional.huber_loss(z, target, reduction="none", delta=self.huber_delta)
        return functional.mse_loss(z, target, reduction="none")

    def _of_mixture(self, experts: Experts, target_B: Tensor) -> Tensor:
        nat = (1.0 if self.loss == "huber" else 2.0) * experts.spread**2
        return experts.losses(self._errors(experts.logits_EBK[..., 0], target_B), nat)

    def imitation(self, rows: TaskRows, teacher_BK: Tensor, temperature: float) -> Tensor:
        """Squared errors of z, and of d with its share, on the scale; Huber's loss is for labels; see ``Task``."""
        del temperature
        squares_BK = (rows.logits_BK - teacher_BK).square()
        return squares_BK[:, 0] + MEAN_SHARE * squares_BK[:, 1] if self.has_mean else squares_BK[:, 0]

    def predict(self, logits_BK: Tensor) -> Tensor:
        """Value per row, in the unit of the label; see ``Task``."""
        z_B = logits_BK[:, 0]
        return _sign(z_B) * torch.expm1(z_B.abs() + logits_BK[:, 1]) if self.has_mean else self.scale.back(z_B)

    def measures(self, logits_BK: Tensor, labels_B: Tensor) -> Mapping[str, Tensor]:
        """The absolute error of the median, where the prediction is another number; see ``Task``."""
        return {"mae": (self.scale.back(logits_BK[:, 0]) - labels_B).abs()} if self.has_mean else {}

    def statistics(self, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """The label on its scale, and what the ratio of mean to median needs; see ``Task``."""
        values_BS = self.scale.to(labels_B)[:, None]
        if self.has_mean:
            target_B1 = values_BS.abs()
            values_BS = torch.cat([values_BS, 1.0 + labels_B.abs()[:, None], target_B1], dim=1)
        return values_BS, torch.ones_like(values_BS)

    def starts(self, sums: LabelSums) -> list[TaskStart]:
        """Mean and spread on the scale, then log(mean(1 + |y|)) − mean(log(1 + |y|)); see ``Task``."""
        first = sums.value_start(0)
        if not self.has_mean:
            return [first]
        num_rows = float(sums.num_rows_S[0])
        ratio = float((sums.sums_S[1] / num_rows).log() - sums.sums_S[2] / num_rows) if num_rows else 0.0
        return [first, TaskStart(logit=ratio, unit=first.unit)]


def _sign(z_B: Tensor) -> Tensor:
    return torch.where(z_B < 0, -1.0, 1.0)


class RegressionTaskConfig(OwnLabelConfig):
    """A real label, predicted in its own unit within the task's space."""

    output: ClassVar[TaskOutput] = "regression"
    measures: ClassVar[Mapping[str, Measure]] = {
        "mae": Measure("lowest", "Mean absolute error, in the unit of the label; of the median where the task has one.")
    }

    kind: Literal["regression"] = "regression"
    label: str
    """Column that holds finite numbers or null; null rows are left out of loss and metrics."""
    transform: Transform = "none"
    """Scale of the error: the label's own, or sign(y) · log(1 + |y|) for amounts and durations."""
    loss: Literal["mse", "huber"] = "mse"
    """Squared error, or Huber's, which grows linearly for outliers."""
    huber_delta: PositiveFloat = 1.0
    """Error at which Huber's loss turns linear, in transformed units."""
    predicts: Literal["mean", "median"] | None = None
    """With log1p: the mean (by default), whose sum over rows is that of the labels, or what lies near the median."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """What does not fit together, as (key path, message)."""
        if self.predicts == "median" and self.transform == "none":
            yield "predicts", "a median needs transform: log1p; on the label's own scale, kind: quantile predicts it"

    def build(self) -> RegressionTask:
        """Link and loss of this task."""
        return RegressionTask(
            transform=self.transform,
            loss=self.loss,
            huber_delta=self.huber_delta,
            has_mean=self.transform == "log1p" and self.predicts != "median",
        )
