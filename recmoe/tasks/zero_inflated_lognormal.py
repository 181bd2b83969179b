"""Zero-inflated lognormal tasks: amounts that are often nothing and sometimes much, such as what a user will spend."""

# B rows, K = 3 logits: whether there is any amount, and μ and σ of its logarithm

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from recmoe.features.labels import LabelColumn
from recmoe.tasks.error import GAMMA_DEVIANCE, ErrorMeasure
from recmoe.tasks.imitation import binary_divergence
from recmoe.tasks.level import Level
from recmoe.tasks.mixing import Mixing
from recmoe.tasks.own_label import OwnLabelConfig
from recmoe.tasks.scale import LOG1P, Scale
from recmoe.tasks.start import LabelSums, TaskStart
from recmoe.tasks.task import Measure, TaskOutput, TaskRows

SMALLEST_SIGMA = 1e-3
LARGEST_EXPONENT = 80.0
"""exp of more than this is no float32."""


class ZeroInflatedLognormalTask:
    """An amount y ≥ 0 that is 0 with probability 1 − p, else lognormal: log y is normal with mean μ and deviation σ::

        p = σ(z_1),  μ = z_2,  σ = softplus(z_3)
        loss = −[y > 0] · log p − [y = 0] · log(1 − p) + [y > 0] · (log(y · σ · √(2π)) + (log y − μ)² / (2σ²))
        prediction = E[y] = p · exp(μ + σ²/2)

    ZILN: Wang, Liu & Miao 2019, https://arxiv.org/abs/1912.07753, equations 1-3.
    """

    logits: tuple[str, ...] = ("any", "mu", "sigma")
    loss_power: Literal[0, 1, 2] = 0
    scale: Scale = LOG1P
    level: Level | None = Level(logit=1, offset=0.0)
    mixing: Mixing | None = None
    error: ErrorMeasure = GAMMA_DEVIANCE

    def losses(self, rows: TaskRows) -> Tensor:
        """Negative log-likelihood per row, in nats; below 0 where the density is above 1; see ``Task``."""
        is_any_B, log_B = _parts(rows.labels_B)
        any_B, mu_B, sigma_B = _parameters(rows.logits_BK)
        density_B = log_B + sigma_B.log() + 0.5 * math.log(2.0 * math.pi) + 0.5 * ((log_B - mu_B) / sigma_B).square()
        return functional.binary_cross_entropy_with_logits(any_B, is_any_B, reduction="none") + is_any_B * density_B

    def imitation(self, rows: TaskRows, teacher_BK: Tensor, temperature: float) -> Tensor:
        """Divergence of whether there is any amount, and where the teacher expects one that of the normals::

        KL_any + p_t · (log(σ / σ_t) + (σ_t² + (μ − μ_t)²) / (2σ²) − 1/2)        see ``Task``
        """
        any_B, mu_B, sigma_B = _parameters(rows.logits_BK)
        teacher_any_B, teacher_mu_B, teacher_sigma_B = _parameters(teacher_BK)
        square_B = (teacher_sigma_B.square() + (mu_B - teacher_mu_B).square()) / (2.0 * sigma_B.square())
        amount_B = (sigma_B / teacher_sigma_B).log() + square_B - 0.5
        return binary_divergence(any_B, teacher_any_B, temperature) + torch.sigmoid(teacher_any_B) * amount_B

    def predict(self, logits_BK: Tensor) -> Tensor:
        """Expected amount per row; see ``Task``."""
        any_B, mu_B, sigma_B = _parameters(logits_BK)
        return torch.sigmoid(any_B) * (mu_B + 0.5 * sigma_B.square()).clamp(max=LARGEST_EXPONENT).exp()

    def measures(self, logits_BK: Tensor, labels_B: Tensor) -> Mapping[str, Tensor]:
        """The likelihood's two parts, and the absolute error of the median; see ``Task``."""
        is_any_B, _ = _parts(labels_B)
        any_B, mu_B, sigma_B = _parameters(logits_BK)
        # P(y ≤ m) = (1 − p) + p · Φ((log m − μ) / σ) is one half at the median; it is 0 where p is below that.
        place_B = 1.0 - 0.5 / torch.sigmoid(any_B)
        exponent_B = mu_B + sigma_B * torch.special.ndtri(place_B.clamp(min=1e-6))
        median_B = torch.where(place_B > 0, exponent_B.clamp(max=LARGEST_EXPONENT).exp(), 0.0)
        return {
            "any_logloss": functional.binary_cross_entropy_with_logits(any_B, is_any_B, reduction="none"),
            "mae": (median_B - labels_B).abs(),
        }

    def statistics(self, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """Whether there is any amount, and the logarithm of one; see ``Task``."""
        is_any_B, log_B = _parts(labels_B)
        return torch.stack([is_any_B, log_B], dim=1), torch.stack([torch.ones_like(is_any_B), is_any_B], dim=1)

    def starts(self, sums: LabelSums) -> list[TaskStart]:
        """Log-odds of any amount, mean of its logarithm, inverse softplus of its deviation; see ``Task``."""
        log = sums.value_start(1)
        return [sums.binary_start(0), log, TaskStart(logit=math.log(math.expm1(max(log.unit, SMALLEST_SIGMA))))]


def _parts(labels_B: Tensor) -> tuple[Tensor, Tensor]:
    """1 where there is an amount, and its logarithm, 0 where there is none."""
    is_any_B = labels_B > 0
    return is_any_B.to(labels_B.dtype), torch.where(is_any_B, labels_B, 1.0).log()


def _parameters(logits_BK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-odds of any amount, μ and σ."""
    return logits_BK[:, 0], logits_BK[:, 1], functional.softplus(logits_BK[:, 2]).clamp(min=SMALLEST_SIGMA)


class ZeroInflatedLognormalTaskConfig(OwnLabelConfig):
    """An amount of 0 or more, predicted as its mean within the task's space."""

    output: ClassVar[TaskOutput] = "regression"
    measures: ClassVar[Mapping[str, Measure]] = {
        "any_logloss": Measure("lowest", "Mean cross-entropy of whether there is any amount, in nats."),
        "mae": Measure(
            "lowest", "Mean absolute error, in the unit of the label; of the median where the task has one."
        ),
    }

    kind: Literal["zero_inflated_lognormal"] = "zero_inflated_lognormal"
    label: str
    """Column of amounts, 0 or more, or null; null rows are left out of loss and metrics."""

    def label_column(self) -> LabelColumn | None:
        """Its label, as the encoder reads it."""
        return LabelColumn(self.label, is_binary=False, is_amount=True)

    def build(self) -> ZeroInflatedLognormalTask:
        """Link and loss of this task."""
        return ZeroInflatedLognormalTask()
