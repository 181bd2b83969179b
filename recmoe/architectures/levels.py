"""Levels: layers of experts, one on the other, each of whose streams the next reads."""

# B rows, D input width, H expert width

from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn

from recmoe.axes import PartNames
from recmoe.balancing.fork import Fork
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput


class Levels(nn.ModuleList):
    """Expert layers of which the first reads x, and every other what the gates of the one before it gave."""

    def names(self) -> PartNames:
        """A level is what it is by its position; what ``part_names`` of its owner says of ``levels``."""
        return {"levels": [str(level) for level in range(len(self))]}

    def fork_last(self, fork: Fork) -> None:
        """Let the last gates read copies of the experts that several of them see."""
        *_, last = self._layers()
        last.fork = fork

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:
        """One h_BH per gate of the last level; the use of the gates, level by level."""
        h: list[Tensor] = []
        uses = []
        for level, layer in enumerate(self._layers()):
            h, use = layer([x] if level == 0 else h, groups)
            uses.append(use)
        return h, uses

    def _layers(self) -> Iterator[ExpertLayer]:
        return (cast(ExpertLayer, layer) for layer in self)
