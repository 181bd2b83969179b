"""Single task: one network per task, nothing shared but the tables."""

# B rows, H width of a representation

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from recmoe.config import Config
from recmoe.moe.expert_layer import GateUse
from recmoe.moe.experts import Experts, Form
from recmoe.moe.linear import SidedInput


class SingleTaskConfig(Config):
    """One network per task, nothing shared but the tables."""

    kind: Literal["single_task"] = "single_task"
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128)
    """Width of each layer of a task's network."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of activations dropped in training."""

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "SingleTask":
        """The networks, with weights drawn from torch's global generator."""
        return SingleTask(in_features=in_features, num_tasks=len(task_names), hidden=self.hidden, dropout=self.dropout)


class SingleTask(nn.Module):
    """h_BH of task t = mlp_t(x_BD).

    Args:
        in_features: D.
        num_tasks: how many networks.
        hidden: width of each layer; the last is H.
        dropout: share of activations dropped in training.
        form: how the networks are computed, see ``Experts``.
    """

    def __init__(
        self, *, in_features: int, num_tasks: int, hidden: Sequence[int], dropout: float = 0.0, form: Form = "auto"
    ) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.experts = Experts(
            experts_per_group=[1] * num_tasks, in_features=in_features, hidden=hidden, dropout=dropout, form=form
        )
        self.out_features = self.experts.out_features

    def forward(self, x: Tensor | SidedInput) -> tuple[list[Tensor], list[GateUse]]:
        """One h_BH per task; there are no gates."""
        return self.experts([x] * self.num_tasks), []
