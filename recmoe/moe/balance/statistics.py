"""What balance terms read of gates, and means over the rows of all workers."""

# B rows, G gates of a level, E experts, V experts visible to a gate, L logits of a row

from collections.abc import Sequence

import torch
from torch import Tensor

from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates.gate import Weighed
from recmoe.workers import mean_over_workers, num_workers

SMALLEST_SHARE = 1e-12
"""A mean weight below it counts as none."""


def visible(use: GateUse) -> Tensor:
    """visible_GE, bool: which experts each gate sees."""
    if use.visible_GE is not None:
        return use.visible_GE
    return torch.ones(use.weights_BGE.shape[1:], dtype=torch.bool, device=use.weights_BGE.device)


def relative(mean_GE: Tensor, visible_GE: Tensor, *, sums_to_one: bool) -> Tensor:
    """Mean weights in even shares of what their gate gives: its mean over the experts that it sees; 0 of nothing."""
    relative_GE = mean_GE * visible_GE.sum(dim=1, keepdim=True)
    return relative_GE if sums_to_one else relative_GE / mean_GE.sum(dim=1, keepdim=True).clamp(min=SMALLEST_SHARE)


def gates_of(uses: Sequence[GateUse]) -> list[Weighed]:
    """What every gate of every level gave."""
    return [of_gate for use in uses for of_gate in use.by_gate]


def single_gates_of(uses: Sequence[GateUse]) -> list[Weighed]:
    """The same, but of a gate that is made of others what these gave."""
    return [single for gate in gates_of(uses) for single in gate.inner or (gate,)]


def all_logits(gate: Weighed) -> Tensor | None:
    """logits_BL of the experts that a gate sees, and of null ones; None without."""
    if gate.logits_BV is None or gate.nulls is None:
        return gate.logits_BV
    return torch.cat([gate.logits_BV, gate.nulls.logits_BM], dim=1)


def shares_of(gate: Weighed) -> Tensor:
    """p_BV: the softmax of a gate's logits over all that it sees, also of a sparse one; without logits its weights.

    Null experts take no part.

    Rows sum to one, but for those that got no weight.
    """
    if gate.logits_BV is None:
        return gate.weights_BV / gate.weights_BV.sum(dim=1, keepdim=True).clamp(min=SMALLEST_SHARE)
    return torch.softmax(gate.logits_BV, dim=1)


def entropy(p: Tensor) -> Tensor:
    """-Σ p · log p over the last axis, in nats; its gradient is finite where p is 0."""
    return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum(dim=-1)


def over_workers(means: Sequence[Tensor]) -> list[Tensor]:
    """Means over the rows of this worker → means over the rows of all, which have as many each; collective.

    The gradient is that of this worker's mean. A loss L of means m = (Σ_r m_r) / R has the gradient
    (1 / R) · Σ_r L'(m) · dm_r, and the mean over workers is what data parallel training makes of their gradients.
    So a term that is computed from these means is, in value and gradient, that of one process with all the rows.
    """
    if num_workers() == 1 or not means:
        return list(means)
    own = torch.cat([mean.flatten() for mean in means])
    known = own.detach()
    joint = own + (mean_over_workers(known) - known)
    parts = torch.split(joint, [mean.numel() for mean in means])
    return [part.view_as(mean) for part, mean in zip(parts, means, strict=True)]


def mean_of(values: Sequence[Tensor]) -> Tensor:
    """The mean of scalars; zero where no gate gave one."""
    return torch.stack(list(values)).mean() if values else torch.zeros(())
