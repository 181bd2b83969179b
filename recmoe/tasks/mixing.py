"""Mixing: how experts that each predict a task by themselves are joined to one prediction.

Adaptive mixtures of local experts: Jacobs, Jordan, Nowlan & Hinton, Neural Computation 1991,
https://doi.org/10.1162/neco.1991.3.1.79, equation 1.3.
"""

# E experts, B rows, K logits of a task, Z logits of all

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Experts(NamedTuple):
    """What the experts predict of one task."""

    logits_EBK: Tensor
    log_shares_EB: Tensor
    """Logarithms of the gate's weights, which sum to one in every row; -inf where an expert has no part."""
    spread: Tensor | float
    """Standard deviation of a value around what an expert predicts, in the unit of the first logit."""

    def loss(self, losses_EB: Tensor, nat: Tensor | float) -> Tensor:
        """loss_B = −τ · log Σ_e p_e · exp(−loss_e / τ): experts compete, and a row moves those that predict it best.

        Args:
            losses_EB: of every expert's own prediction.
            nat: τ, what of the loss is a negative log-likelihood of 1.
        """
        return -nat * torch.logsumexp(self.log_shares_EB - losses_EB / nat, dim=0)


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


def log_shares(shares: Tensor) -> Tensor:
    """The logarithm, and -inf for 0, which gets no gradient."""
    tiny = torch.finfo(shares.dtype).tiny
    return shares.clamp(min=tiny).log().masked_fill(shares == 0, -torch.inf)


@dataclass(frozen=True)
class Mixing:
    """What a kind of task makes of experts that predict it."""

    join: Callable[[Experts], Tensor]
    """logits_BK of the mixture, of which the task's prediction is the mean of what the experts predict."""


def _mixed_log_odds(experts: Experts) -> Tensor:
    """The log-odds of Σ_e p_e · σ(z_e), without a probability that could round to 0 or 1."""
    shares_EB1 = experts.log_shares_EB.unsqueeze(2)
    yes_BK, no_BK = (
        torch.logsumexp(shares_EB1 + functional.logsigmoid(sign * experts.logits_EBK), dim=0) for sign in (1, -1)
    )
    return yes_BK - no_BK


def _mixed_classes(experts: Experts) -> Tensor:
    """log Σ_e p_e · softmax(z_e)."""
    shares_EB1 = experts.log_shares_EB.unsqueeze(2)
    return torch.logsumexp(shares_EB1 + functional.log_softmax(experts.logits_EBK, dim=2), dim=0)


def _mixed_values(experts: Experts) -> Tensor:
    """Σ_e p_e · z_e."""
    return (experts.log_shares_EB.exp().unsqueeze(2) * experts.logits_EBK).sum(dim=0)


LOG_ODDS = Mixing(_mixed_log_odds)
CLASSES = Mixing(_mixed_classes)
VALUES = Mixing(_mixed_values)
