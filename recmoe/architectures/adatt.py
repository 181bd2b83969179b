"""AdaTT: every task reads the experts of all tasks through a gate, and its own once more around it, level by level.

Adaptive task-to-task fusion: Li et al., KDD 2023, https://arxiv.org/abs/2304.04959, section 3.
"""

# B rows, D input width, G gates, E experts of a level, N weights around gates that are learned, H expert width

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from recmoe.architectures.cgc import SHARED, OwnAndSharedConfig, expert_names, experts_by_task, own_and_shared_mask
from recmoe.architectures.levels import Levels
from recmoe.architectures.seam import LevelFlow
from recmoe.architectures.towers import TowerKind
from recmoe.axes import PartNames, WeightAxes
from recmoe.balancing.fork import Fork
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput
from recmoe.moe.mixture import MakeLayer


class AdaTTConfig(OwnAndSharedConfig, TowerKind):
    """Every task reads the experts of all tasks through a gate, and its own once more around it.

    A sparse gate saves no work here: what is read around the gates is computed for every row.
    """

    can_fork: ClassVar[bool] = True
    kind: Literal["adatt"] = "adatt"
    num_shared_experts: NonNegativeInt = 0
    """Experts of a stream that belongs to no task, per level; 0 is AdaTT-sp."""
    num_task_experts: PositiveInt | dict[str, PositiveInt] = 2
    """Experts of each task, per level: one number for all tasks, or a number by task name."""
    num_levels: PositiveInt = 2
    """Fusion levels."""
    mixes: Literal["outputs"] = "outputs"
    """Outputs of experts alone: weights are merged by shares, which those around the gates are not."""

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "AdaTT":
        """The model, with weights drawn from torch's global generator."""
        return AdaTT(
            in_features=in_features,
            num_levels=self.num_levels,
            num_task_experts=experts_by_task(self.num_task_experts, task_names),
            num_shared_experts=self.num_shared_experts,
            make_layer=self.layer,
        )

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow]:
        """Every gate sees all experts, so every task moves them all, and every stream holds all that is below it."""
        shared = {SHARED} if self.num_shared_experts else set()
        everyone = {*task_names, *shared}
        last = self.num_levels - 1
        return [
            LevelFlow(
                owners_by_task=dict.fromkeys(task_names, everyone),
                owners_by_gate_above=(
                    {}
                    if level == last
                    else dict.fromkeys(task_names if level == last - 1 else (*task_names, *shared), everyone)
                ),
            )
            for level in range(self.num_levels)
        ]


class NativeWeights(nn.Module):
    """v_GE, by which a level mixes the experts of a stream around its gate; see ``AroundGates``.

    Learned where a stream owns several experts, 1 where it owns one. It begins uniform in ±1/√(experts owned), as in
    the authors' code; the paper leaves that open.

    Args:
        expert_names: of the level.
        owned_GE: which experts each gate's stream owns.
    """

    alone_GE: Tensor
    place_N: Tensor

    def __init__(self, *, expert_names: Sequence[str], owned_GE: Sequence[Sequence[bool]]) -> None:
        super().__init__()
        self.mask_GE = owned_GE
        several = [
            (gate * len(expert_names) + expert, expert_names[expert], 1.0 / sum(row) ** 0.5)
            for gate, row in enumerate(owned_GE)
            for expert, is_owned in enumerate(row)
            if is_owned and sum(row) > 1
        ]
        self.learned_names = tuple(name for _, name, _ in several)
        bound_N = torch.tensor([bound for _, _, bound in several])
        self.learned_N = nn.Parameter((2.0 * torch.rand(len(several)) - 1.0) * bound_N) if several else None
        alone_GE = [[float(is_owned and sum(row) == 1) for is_owned in row] for row in owned_GE]
        self.register_buffer("alone_GE", torch.tensor(alone_GE), persistent=False)
        places = torch.tensor([place for place, _, _ in several], dtype=torch.int64)
        self.register_buffer("place_N", places, persistent=False)

    def weight_axes(self) -> WeightAxes:
        """A weight for each expert of an owner of several."""
        return {"learned_N": (self.learned_names,)} if self.learned_names else {}

    def forward(self) -> Tensor:
        """v_GE."""
        if self.learned_N is None:
            return self.alone_GE
        return self.alone_GE.flatten().index_copy(0, self.place_N, self.learned_N).view_as(self.alone_GE)


class AdaTT(nn.Module):
    """Every task, and shared experts where there are some, have a stream that runs through the levels::

        h_t^l = Σ_e g_t(h_t^(l-1))_e · y_e^l  +  Σ_(e of t) v_(t,e)^l · y_e^l     all experts; then those of t
        y_e^l = f_e(h_o^(l-1))                                                    where o owns expert e

    with h^0 = x for all streams. A shared stream is mixed likewise; the last level has none.

    Args:
        in_features: D.
        num_levels: fusion levels.
        num_task_experts: experts of each task per level, by name; the order of the tasks.
        num_shared_experts: experts per level of the shared stream.
        make_layer: builds experts and gates of a level.
    """

    def __init__(
        self,
        *,
        in_features: int,
        num_levels: int,
        num_task_experts: Mapping[str, int],
        num_shared_experts: int,
        make_layer: MakeLayer,
    ) -> None:
        super().__init__()
        assert num_levels > 0, "at least one level is needed"
        counts = {**num_task_experts, **({SHARED: num_shared_experts} if num_shared_experts else {})}
        names = expert_names(num_task_experts, num_shared_experts)
        self.levels = Levels()
        for level in range(num_levels):
            # The first level reads x alone; the others read a stream each.
            read = dict.fromkeys(counts, 0) if level == 0 else {owner: at for at, owner in enumerate(counts)}
            owners = list(num_task_experts) if level == num_levels - 1 else list(counts)
            layer = make_layer(
                experts=dict(
                    zip(names, chain.from_iterable([read[o]] * count for o, count in counts.items()), strict=True)
                ),
                gates={owner: read[owner] for owner in owners},
                mask_GE=[[True] * len(names)] * len(owners),
                in_features=in_features,
                level=level,
                around=NativeWeights(
                    expert_names=names, owned_GE=own_and_shared_mask(list(counts.values()), 0)[: len(owners)]
                ),
            )
            self.levels.append(layer)
            in_features = layer.out_features
        self.out_features = in_features

    def part_names(self) -> PartNames:
        """Levels are what they are by their position."""
        return self.levels.names()

    def fork_shared(self, fork: Fork) -> None:
        """Let the tasks read copies of the experts of the last level."""
        self.levels.fork_last(fork)

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:
        """One h_BH per task; the use of the gates at every level, the shared gate last."""
        found: tuple[list[Tensor], list[GateUse]] = self.levels(x, groups)
        return found
