"""Mixing: how experts that each predict a task by themselves are joined to one prediction.

Adaptive mixtures of local experts: Jacobs, Jordan, Nowlan & Hinton, Neural Computation 1991,
https://doi.org/10.1162/neco.1991.3.1.79, equation 1.3, read as others quote it.
"""

# E experts, B rows, K logits of a task, Z logits of all

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

LARGEST_EXPONENT = 10.0
"""An expert without a share in a row tells the gate at most that it is e¹⁰ times as likely as the best that has one."""


class Experts(NamedTuple):
    """What the experts predict of one task."""

    logits_EBK: Tensor
    shares_EB: Tensor
    """The gate's weights, which sum to one in every row."""
    spread: Tensor | float
    """Standard deviation of a value around what an expert predicts, in the unit of the first logit."""

    def losses(self, losses_EB: Tensor, nat: Tensor | float) -> Tensor:
        """loss_B = −τ · log Σ_e p_e · exp(−loss_e / τ): experts compete, and a row moves those that predict it best.

        Args:
            losses_EB: of every expert's own prediction.
            nat: τ, what of the loss is a negative log-likelihood of 1.
        """
        return -nat * self.log_mean(-losses_EB / nat)

    def log_mean(self, log_EB: Tensor) -> Tensor:
        """log Σ_e p_e · exp(log_e) per row, without an exponential that overflows or a sum that rounds to 0."""
        # The shares stay shares: one that is 0 by a draw may have a gradient, and its logarithm has none.
        top_B = log_EB.detach().masked_fill(self.shares_EB == 0, -torch.inf).amax(dim=0)
        above_EB = (log_EB - top_B).clamp(max=LARGEST_EXPONENT)
        return top_B + (self.shares_EB * above_EB.exp()).sum(dim=0).log()


Mixture = Mapping[str, Experts]
"""By task with a tower, in order."""
NO_MIXTURE: Mixture = MappingProxyType({})


def changed(mixture: Mixture, change: Callable[[Tensor], Tensor]) -> Mixture:
    """The same experts with other logits.

    Args:
        change: from the logits of all tasks to others, logits_EBZ → logits_EBZ.
    """
    logits_EBZ = change(torch.cat([experts.logits_EBK for experts in mixture.values()], dim=2))
    parts = torch.split(logits_EBZ, [experts.logits_EBK.shape[2] for experts in mixture.values()], dim=2)
    return {
        name: experts._replace(logits_EBK=logits_EBK)
        for (name, experts), logits_EBK in zip(mixture.items(), parts, strict=True)
    }


@dataclass(frozen=True)
class Mixing:
    """What a kind of task makes of experts that predict it."""

    join: Callable[[Experts], Tensor]
    """logits_BK of the mixture, whose prediction is the mean of what the experts predict, on the scale of the loss."""


def _mixed_log_odds(experts: Experts) -> Tensor:
    """The log-odds of Σ_e p_e · σ(z_e)."""
    z_EB = experts.logits_EBK[..., 0]
    log_odds_B = experts.log_mean(functional.logsigmoid(z_EB)) - experts.log_mean(functional.logsigmoid(-z_EB))
    return log_odds_B.unsqueeze(1)


def _mixed_classes(experts: Experts) -> Tensor:
    """log Σ_e p_e · softmax(z_e)."""
    log_EBK = functional.log_softmax(experts.logits_EBK, dim=2)
    return torch.stack([experts.log_mean(log_EB) for log_EB in log_EBK.unbind(dim=2)], dim=1)


def _mixed_values(experts: Experts) -> Tensor:
    """Σ_e p_e · z_e."""
    return (experts.shares_EB.unsqueeze(2) * experts.logits_EBK).sum(dim=0)


LOG_ODDS = Mixing(_mixed_log_odds)
CLASSES = Mixing(_mixed_classes)
VALUES = Mixing(_mixed_values)
