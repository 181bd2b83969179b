"""GateLosses: what gates learn by besides the gradient of their weights, as losses of the model that has them."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from recmoe.architectures.policy_losses import PolicyLosses
from recmoe.architectures.seam import Targets
from recmoe.moe.balance.statistics import single_gates_of
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates.gate import Distils, LearnsByPolicy

DISTILLED = "gates.distilled"


class GateLosses(Protocol):
    """Losses of the gates of all levels together."""

    @property
    def weights(self) -> Mapping[str, float]:
        """By name of a loss: its factor in the loss that is minimised."""
        ...

    def __call__(self, uses: Sequence[GateUse], targets: Targets) -> dict[str, Tensor]:
        """Scalars by these names."""
        ...


class DistilledLoss:
    """Sum over levels and gates of the mean over rows of the cross-entropy of a second router with the gate's choice.

    StableMoE: Dai et al., ACL 2022, https://arxiv.org/abs/2204.08396, the distillation loss of stage 1. 0 where the
    router is frozen. Its weight is 1, for the router shares nothing with what other losses move.
    """

    weights: ClassVar[Mapping[str, float]] = {DISTILLED: 1.0}

    def __call__(self, uses: Sequence[GateUse], targets: Targets) -> dict[str, Tensor]:
        """The loss; a batch on which no gate trained has none."""
        losses = [
            gate.distilled.learns * functional.cross_entropy(gate.distilled.logits_BV, gate.distilled.chosen_B)
            for gate in single_gates_of(uses)
            if gate.distilled is not None
        ]
        return {DISTILLED: torch.stack(losses or [*targets.labels_BT.new_zeros(1)]).sum()}


def gate_losses_of(architecture: nn.Module, task_names: Sequence[str]) -> tuple[GateLosses, ...]:
    """Those of the gates of an architecture; none where all learn by the gradient of their weights."""
    gates = list(architecture.modules())
    losses: list[GateLosses] = []
    if any(isinstance(gate, LearnsByPolicy) for gate in gates):
        losses.append(PolicyLosses(task_names))
    if any(isinstance(gate, Distils) for gate in gates):
        losses.append(DistilledLoss())
    return tuple(losses)
