"""Single task: one network per task, nothing shared but the tables."""

# B rows, H width of a representation

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from recmoe.architectures.seam import LevelFlow
from recmoe.architectures.towers import TowerKind
from recmoe.moe.experts import Form, MlpExperts
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput


class SingleTaskConfig(TowerKind):
    """One network per task, nothing shared but the tables."""

    kind: Literal["single_task"] = "single_task"
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128)
    """Width of each layer of a task's network."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of activations dropped in training."""

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "SingleTask":
        """The networks, with weights drawn from torch's global generator."""
        return SingleTask(in_features=in_features, task_names=task_names, hidden=self.hidden, dropout=self.dropout)

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow]:
        """Every task moves its own network."""
        return [LevelFlow({task: {task} for task in task_names})]


class SingleTask(nn.Module):
    """h_BH of task t = mlp_t(x_BD).

    Args:
        in_features: D.
        task_names: one network each.
        hidden: width of each layer; the last is H.
        dropout: share of activations dropped in training.
        form: how the networks are computed, see ``MlpExperts``.
    """

    def __init__(
        self,
        *,
        in_features: int,
        task_names: Sequence[str],
        hidden: Sequence[int],
        dropout: float = 0.0,
        form: Form = "auto",
    ) -> None:
        super().__init__()
        self.experts = MlpExperts(
            reads=dict.fromkeys(task_names, 0), in_features=in_features, hidden=hidden, dropout=dropout, form=form
        )
        self.out_features = self.experts.out_features

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:  # noqa: ARG002
        """One h_BH per task; there are no gates."""
        return self.experts([x]), []
