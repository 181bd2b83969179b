"""How evenly the gates use the experts: usage, dead experts, the balance loss."""

# B rows, G gates, E experts

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recmoe.moe.expert_layer import GateUse

SMALLEST_SHARE = 1e-12
"""A mean weight below it counts as none."""


@dataclass(frozen=True)
class ExpertUsage:
    """The mean weight that each gate of a level gave each expert, over some rows.

    Example: two tasks with one expert each and one shared expert; cvr leaves its own expert alone::

                 ctr.0  cvr.0  shared.0
            ctr    .40      0       .60
            cvr      0    .01       .99
    """

    level: int
    gates: tuple[str, ...]
    experts: tuple[str, ...]
    usage_GE: Tensor
    """float64 on the CPU; rows sum to one where the weights of the gate do."""
    visible_GE: Tensor
    """bool, which experts each gate sees."""
    num_rows: int

    def merge(self, other: "ExpertUsage") -> "ExpertUsage":
        """The usage over the rows of both."""
        assert (self.level, self.gates, self.experts) == (other.level, other.gates, other.experts), "not the same level"
        num_rows = self.num_rows + other.num_rows
        usage_GE = (self.usage_GE * self.num_rows + other.usage_GE * other.num_rows) / num_rows
        return ExpertUsage(
            level=self.level,
            gates=self.gates,
            experts=self.experts,
            usage_GE=usage_GE,
            visible_GE=self.visible_GE,
            num_rows=num_rows,
        )


def expert_usage(use: GateUse) -> ExpertUsage:
    """The mean of the gate weights over the rows of a batch."""
    weights_BGE = use.weights_BGE.detach()
    return ExpertUsage(
        level=use.level,
        gates=use.gates,
        experts=use.experts,
        usage_GE=weights_BGE.mean(dim=0).double().cpu(),
        visible_GE=_visible(use).cpu(),
        num_rows=weights_BGE.shape[0],
    )


def dead_experts(usages: Sequence[ExpertUsage], *, threshold: float = 0.05) -> list[str]:
    """Experts that gates see and none uses, as "level 0: ctr.1".

    Args:
        threshold: an expert is dead where every gate that sees it gives it less than this part of an even share:
            the mean over the experts that the gate sees.
    """
    dead = []
    for usage in usages:
        best_E = _relative(usage.usage_GE, usage.visible_GE, sums_to_one=False).amax(dim=0)
        dead += [
            f"level {usage.level}: {expert}"
            for expert, best, is_seen in zip(
                usage.experts, best_E.tolist(), usage.visible_GE.any(dim=0).tolist(), strict=True
            )
            if is_seen and best < threshold
        ]
    return dead


def importance_loss(uses: Sequence[GateUse]) -> Tensor:
    """Mean over all gates of the squared coefficient of variation of their experts' importance.

    importance_e = Σ_b p[b, e];  loss = (standard deviation / mean)² over the experts a gate sees: 0 where all get
    the same, V - 1 where one of V gets everything. Shazeer et al., ICLR 2017, https://arxiv.org/abs/1701.06538,
    equations 6-7.

    Zero for a model without gates, so that one training config serves every architecture.
    """
    if not uses:
        return torch.zeros(())
    losses = []
    for use in uses:
        visible_GE = _visible(use)
        relative_GE = _relative(use.weights_BGE.mean(dim=0), visible_GE, sums_to_one=use.sums_to_one)
        deviation_GE = torch.where(visible_GE, relative_GE - 1.0, 0.0)
        losses.append(deviation_GE.square().sum(dim=1) / visible_GE.sum(dim=1))
    return torch.cat(losses).mean()


def _relative(mean_GE: Tensor, visible_GE: Tensor, *, sums_to_one: bool) -> Tensor:
    """Mean weights in even shares of what their gate gives: its mean over the experts that it sees; 0 of nothing."""
    relative_GE = mean_GE * visible_GE.sum(dim=1, keepdim=True)
    return relative_GE if sums_to_one else relative_GE / mean_GE.sum(dim=1, keepdim=True).clamp(min=SMALLEST_SHARE)


def _visible(use: GateUse) -> Tensor:
    if use.visible_GE is not None:
        return use.visible_GE
    return torch.ones(use.weights_BGE.shape[1:], dtype=torch.bool, device=use.weights_BGE.device)
