"""Shared bottom: one network for all tasks.

Caruana, Machine Learning 1997, https://doi.org/10.1023/A:1007379606734.
"""

# B rows, D input width, H width of the representation

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from recmoe.architectures.seam import LevelFlow
from recmoe.architectures.towers import TowerKind
from recmoe.balancing.fork import Fork, forked
from recmoe.moe.experts import MlpExperts
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput


class SharedBottomConfig(TowerKind):
    """One network for all tasks."""

    can_fork: ClassVar[bool] = True
    kind: Literal["shared_bottom"] = "shared_bottom"
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128)
    """Width of each layer of the network."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of activations dropped in training."""

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "SharedBottom":
        """The network, with weights drawn from torch's global generator."""
        return SharedBottom(
            in_features=in_features, num_tasks=len(task_names), hidden=self.hidden, dropout=self.dropout
        )

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow]:
        """Every task moves what all share."""
        return [LevelFlow({task: {"shared"} for task in task_names})]


class SharedBottom(nn.Module):
    """h_BH = mlp(x_BD), the same for every task: one expert, so that no gate has a choice.

    Args:
        in_features: D.
        num_tasks: how many tasks read the representation.
        hidden: width of each layer; the last is H.
        dropout: share of activations dropped in training.
    """

    def __init__(self, *, in_features: int, num_tasks: int, hidden: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.fork: Fork | None = None
        self.experts = MlpExperts(reads={"shared.0": 0}, in_features=in_features, hidden=hidden, dropout=dropout)
        self.out_features = self.experts.out_features

    def fork_shared(self, fork: Fork) -> None:
        """Let the tasks read copies of the representation."""
        self.fork = fork

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:  # noqa: ARG002
        """The same h_BH for every task; there are no gates."""
        return forked(self.experts([x])[0], self.num_tasks, self.fork), []
