"""PLE: levels of CGC; a shared gate carries what all experts found to the next level.

Progressive layered extraction: Tang et al., RecSys 2020, https://doi.org/10.1145/3383313.3412236, equations 5-8.
"""

# B rows, D input width, H expert width

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import ClassVar, Literal

from pydantic import PositiveInt
from torch import Tensor, nn

from recmoe.architectures.cgc import (
    SHARED,
    OwnAndSharedConfig,
    expert_names,
    experts_by_task,
    own_and_shared,
    own_and_shared_mask,
)
from recmoe.architectures.levels import Levels
from recmoe.architectures.seam import LevelFlow
from recmoe.architectures.towers import TowerKind
from recmoe.axes import PartNames
from recmoe.balancing.fork import Fork
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput
from recmoe.moe.mixture import MakeLayer


class PLEConfig(OwnAndSharedConfig, TowerKind):
    """Levels of CGC; a shared gate carries what all experts found to the next level."""

    can_fork: ClassVar[bool] = True
    kind: Literal["ple"] = "ple"
    num_levels: PositiveInt = 2
    """Extraction levels; one level is CGC."""

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "PLE":
        """The model, with weights drawn from torch's global generator."""
        return PLE(
            in_features=in_features,
            num_levels=self.num_levels,
            num_task_experts=experts_by_task(self.num_task_experts, task_names),
            num_shared_experts=self.num_shared_experts,
            make_layer=self.layer,
        )

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow]:
        """By the shared gate a task moves all experts, but not at the last level; gates read the streams below them."""
        everyone = {*task_names, SHARED}
        seen = own_and_shared(task_names)
        streams = {**seen, SHARED: everyone}
        return [
            LevelFlow(
                owners_by_task=seen if level == self.num_levels - 1 else dict.fromkeys(task_names, everyone),
                owners_by_gate_above=(
                    {} if level == self.num_levels - 1 else seen if level == self.num_levels - 2 else streams
                ),
            )
            for level in range(self.num_levels)
        ]


class PLE(nn.Module):
    """Every task, and all of them together (shared), have a stream that runs through the levels::

        h_t^l = Σ_e g_t(h_t^(l-1))_e · y_e^l     over the experts of task t and the shared ones
        h_s^l = Σ_e g_s(h_s^(l-1))_e · y_e^l     over all experts; not at the last level
        y_e^l = f_e(h_o^(l-1))                   where o is the task that owns expert e, or s if it is shared

    with h^0 = x for all streams. Gates and experts of level l read the streams of level l-1, never x again.

    Example: the masks of two tasks with one expert each and one shared expert::

            level 1     e0  e1  e2          level 2, the last     e0  e1  e2
            task 0       1   0   1          task 0                 1   0   1
            task 1       0   1   1          task 1                 0   1   1
            shared       1   1   1

    Args:
        in_features: D.
        num_levels: extraction levels.
        num_task_experts: experts of each task per level, by name; the order of the tasks.
        num_shared_experts: experts per level that all tasks share.
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
        counts = [*num_task_experts.values(), num_shared_experts]
        streams = (*num_task_experts, SHARED)
        task_rows = own_and_shared_mask(counts[:-1], num_shared_experts)
        self.levels = Levels()
        for level in range(num_levels):
            is_last = level == num_levels - 1
            # The first level reads x alone; the others read a stream each.
            read = [0] * len(streams) if level == 0 else list(range(len(streams)))
            mask_GE = task_rows if is_last else [*task_rows, [True] * sum(counts)]
            layer = make_layer(
                experts=dict(
                    zip(
                        expert_names(num_task_experts, num_shared_experts),
                        chain.from_iterable([at] * count for at, count in zip(read, counts, strict=True)),
                        strict=True,
                    )
                ),
                gates=dict(zip(streams[: len(mask_GE)], read, strict=False)),
                mask_GE=mask_GE,
                in_features=in_features,
                level=level,
            )
            self.levels.append(layer)
            in_features = layer.out_features
        self.out_features = in_features

    def part_names(self) -> PartNames:
        """Levels are what they are by their position."""
        return self.levels.names()

    def fork_shared(self, fork: Fork) -> None:
        """Let the last gates read copies of the experts that tasks share."""
        self.levels.fork_last(fork)

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:
        """One h_BH per task; the use of the gates at every level, the shared gate last."""
        found: tuple[list[Tensor], list[GateUse]] = self.levels(x, groups)
        return found
