"""SMES: tasks choose a few experts together, and each a few more by itself, so that a row has a bounded number of them.

Sparse multi-gate experts: Zhang et al. 2026, https://arxiv.org/abs/2602.09386. What is taken from there: the active
experts of a row are a subset that is chosen jointly over the tasks, and a few that each task adds; their number is
bounded; the load is balanced over all gates together. Which scores the tasks vote with, that both parts come from
one pool, and that a task's weights are its gate's over what it chose, rescaled to one, is how this file reads it.
A task that is added later votes too: it moves what the others use.
"""

# B rows, G gates (one per task), E experts, D input width, H expert width

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from recmoe.architectures.seam import LevelFlow
from recmoe.architectures.towers import TowerKind
from recmoe.balancing.fork import Fork
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput
from recmoe.moe.mixture import MakeLayer, MixtureConfig

NEXT_TO_NOTHING = 1e-30


class SMESConfig(MixtureConfig, TowerKind):
    """Experts that tasks choose together for each row, and a few more that each task chooses by itself."""

    can_fork: ClassVar[bool] = True
    kind: Literal["smes"] = "smes"
    num_experts: PositiveInt = 16
    """Experts to choose from."""
    num_joint: PositiveInt = 2
    """Experts of a row that all tasks use."""
    num_private: PositiveInt = 1
    """Experts of a row that each task adds; a row has num_joint + tasks · num_private at most."""

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "SMES":
        """The model, with weights drawn from torch's global generator."""
        return SMES(
            in_features=in_features,
            task_names=task_names,
            num_experts=self.num_experts,
            num_joint=self.num_joint,
            num_private=self.num_private,
            make_layer=self.layer,
        )

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow]:
        """All experts are of one pool."""
        return [LevelFlow(dict.fromkeys(task_names, ("shared",)))]


class JointThenPrivate:
    """From the shares that every task would give all experts to those of the experts that are used::

        S(x)   = the num_joint experts with the largest Σ_t p_t(x)_e
        P_t(x) = the num_private experts outside of S(x) with the largest p_t(x)_e
        q_t(x)_e = p_t(x)_e / Σ over S(x) and P_t(x) of p_t(x),   0 for the others

    Where p is a softmax, q is the softmax over the chosen experts; a gate whose weights sum to another number than 1
    keeps that. Every task has one vote: one with large logits decides no more than the others. What is chosen has no
    gradient, its weights have.

    Example: two tasks, four experts, one chosen jointly and one by each task::

        p_0 = .5  .3  .1  .1      q_0 = .62  .38   0    0       S = {0} with 1.0, P_0 = {1}, P_1 = {3}
        p_1 = .5   0  .1  .4      q_1 = .56   0    0   .44

    Args:
        num_joint, num_private: experts of a row; fewer where there are not so many.
    """

    def __init__(self, *, num_joint: int, num_private: int) -> None:
        assert num_private > 0, "a sparse gate may give nothing to what the others chose"
        self.num_joint = num_joint
        self.num_private = num_private
        self.num_used = num_joint + num_private

    def num_pairs(self, num_gates: int) -> int:
        """num_joint + gates · num_private; see ``JointChoice``."""
        return self.num_joint + num_gates * self.num_private

    def __call__(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """q of every task; see ``JointChoice``."""
        p_BGE = torch.stack(list(weights), dim=1)
        num_experts = p_BGE.shape[2]
        num_joint = min(self.num_joint, num_experts)
        votes_BGE = p_BGE.detach()
        joint_BK = votes_BGE.sum(dim=1).topk(num_joint, dim=1).indices
        is_used_BGE = torch.zeros_like(votes_BGE, dtype=torch.bool)
        is_used_BGE.scatter_(2, joint_BK[:, None].expand(-1, p_BGE.shape[1], -1), value=True)
        # Below any share: what all use is not chosen again.
        others_BGE = votes_BGE.masked_fill(is_used_BGE, -1.0)
        private_BGK = others_BGE.topk(min(self.num_private, num_experts - num_joint), dim=2).indices
        # What is chosen is computed, also where a gate gives it 0: a gate that draws experts learns of the others, too.
        used_BGE = torch.where(is_used_BGE.scatter(2, private_BGK, value=True), p_BGE + NEXT_TO_NOTHING, 0.0)
        # A gate that gives a row no weight at all leaves it without one.
        total_BG1, left_BG1 = (weights_BGE.sum(dim=2, keepdim=True) for weights_BGE in (p_BGE, used_BGE))
        return list((used_BGE * (total_BG1 / left_BG1)).unbind(1))


class SMES(nn.Module):
    """h_t = Σ_e q_t(x)_e · f_e(x) for every task t, with the q of ``JointThenPrivate``.

    Args:
        in_features: D.
        task_names: one gate each, in this order.
        num_experts: experts to choose from.
        num_joint: experts of a row that all tasks use.
        num_private: experts of a row that each task adds.
        make_layer: builds experts and gates.
    """

    def __init__(
        self,
        *,
        in_features: int,
        task_names: Sequence[str],
        num_experts: int,
        num_joint: int,
        num_private: int,
        make_layer: MakeLayer,
    ) -> None:
        super().__init__()
        self.layer = make_layer(
            experts={f"shared.{expert}": 0 for expert in range(num_experts)},
            gates=dict.fromkeys(task_names, 0),
            mask_GE=[[True] * num_experts] * len(task_names),
            in_features=in_features,
            choice=JointThenPrivate(num_joint=num_joint, num_private=num_private),
        )
        self.out_features = self.layer.out_features

    def fork_shared(self, fork: Fork) -> None:
        """Let the gates read copies of the experts."""
        self.layer.fork = fork

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:
        """One h_BH per task; the use of the tasks' gates."""
        h, use = self.layer([x], groups)
        return h, [use]
