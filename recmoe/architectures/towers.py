"""TowerModel: an architecture that gives every task a representation, with a tower on each."""

# B rows, D input width, H representation width, K logits of a task, Z logits of all

from abc import abstractmethod
from collections import ChainMap
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from recmoe.architectures.gate_losses import GateLosses, gate_losses_of
from recmoe.architectures.seam import ArchitectureKind, Forkable, Inputs, Outputs, Parts, Targets
from recmoe.axes import PartNames
from recmoe.balancing.fork import Fork
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput
from recmoe.tasks.tower import Tower


class Architecture(Protocol):
    """A module between the input and the towers."""

    out_features: int
    """Width H of every task's representation."""

    def __call__(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:
        """One h_BH per task, in the order of the names it was built with, and the use of its gates, level by level."""
        ...


class TowerModel(nn.Module):
    """The logits of task t in row b are tower_t(h_t[b]), side by side; see ``Model``.

    Args:
        architecture: x_BD → one h_BH per tower.
        towers: h_BH → logits_BK, one per task.
        task_names: of the towers.
        gate_losses: by what its gates learn, where they learn by losses of their own.
    """

    replaces: frozenset[str] = frozenset()

    def __init__(
        self,
        *,
        architecture: nn.Module,
        towers: Sequence[nn.Module],
        task_names: Sequence[str],
        gate_losses: Sequence[GateLosses] = (),
    ) -> None:
        super().__init__()
        self.task_names = tuple(task_names)
        self.gate_losses = tuple(gate_losses)
        self.loss_weights: Mapping[str, float] = dict(ChainMap(*[dict(losses.weights) for losses in gate_losses]))
        self.architecture = architecture
        self.towers = nn.ModuleList(towers)

    def forward(self, inputs: Inputs) -> Outputs:
        """The logits of some rows."""
        h, routing = self.architecture(inputs.x, inputs.groups)
        return Outputs(self.logits_of(h), routing)

    def logits_of(self, h: Sequence[Tensor]) -> Tensor:
        """logits_BZ from one h_BH per tower."""
        towers = [tower(h_BH).unbind(dim=1) for tower, h_BH in zip(self.towers, h, strict=True)]
        return torch.stack(list(chain.from_iterable(towers)), dim=1)

    def part_names(self) -> PartNames:
        """Every task has a tower."""
        return {"towers": self.task_names}

    def begin_at_zero(self) -> None:
        """Make every logit 0; see ``Model``."""
        for tower in self.towers:
            assert isinstance(tower, Tower)
            tower.begin_at_zero()

    def fork_shared(self, fork: Fork) -> None:
        """Let the towers read copies of what the architecture shares; see ``Forkable``."""
        cast(Forkable, self.architecture).fork_shared(fork)

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """Those of gates that learn by their own; else none."""
        return dict(ChainMap(*[losses(outputs.routing, targets) for losses in self.gate_losses]))


class TowerKind(ArchitectureKind):
    """A kind of architecture x → h."""

    @abstractmethod
    def build(self, *, in_features: int, task_names: Sequence[str]) -> nn.Module:
        """The architecture, with weights drawn from torch's global generator.

        Args:
            in_features: D.
            task_names: of the tasks with a tower, in order.
        """

    def assemble(self, parts: Parts) -> nn.Module:
        """The architecture with a tower on every representation."""
        return with_towers(self.build(in_features=parts.in_features, task_names=parts.tasks.tower_names), parts)


def with_towers(architecture: nn.Module, parts: Parts) -> TowerModel:
    """An ``Architecture`` with a tower on every representation."""
    width = architecture.out_features
    assert isinstance(width, int)
    return TowerModel(
        architecture=architecture,
        towers=parts.make_towers(width),
        task_names=parts.tasks.tower_names,
        gate_losses=gate_losses_of(architecture, parts.tasks.names),
    )
