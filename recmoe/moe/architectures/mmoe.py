"""MMoE: experts shared by all tasks, mixed by one gate per task.

Ma et al., KDD 2018, https://doi.org/10.1145/3219819.3220007, equations 6-7.
"""

# B rows, D input width, H expert width

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from recmoe.config import Config
from recmoe.moe.expert_layer import ExpertLayer, GateUse, MakeGate
from recmoe.moe.experts import Form
from recmoe.moe.gates import GateConfig, SoftmaxGateConfig
from recmoe.moe.linear import SidedInput


class MMoEConfig(Config):
    """Experts shared by all tasks, mixed by one gate per task."""

    kind: Literal["mmoe"] = "mmoe"
    num_experts: PositiveInt = 8
    """Experts that all tasks share."""
    expert_hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128)
    """Width of each layer of an expert."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an expert's activations dropped in training."""
    gate: GateConfig = SoftmaxGateConfig()
    """How rows choose their experts."""

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "MMoE":
        """The model, with weights drawn from torch's global generator."""
        return MMoE(
            in_features=in_features,
            task_names=task_names,
            num_experts=self.num_experts,
            expert_hidden=self.expert_hidden,
            make_gate=self.gate.build,
            dropout=self.dropout,
        )


class MMoE(nn.Module):
    """h_t = Σ_e g_t(x)_e · f_e(x) for every task t.

    Args:
        in_features: D.
        task_names: one gate each, in this order.
        num_experts: experts that all tasks share.
        expert_hidden: width of each layer of an expert; the last is H.
        make_gate: builds a gate.
        dropout: share of an expert's activations dropped in training.
        form: how the experts are computed, see ``Experts``.
    """

    def __init__(
        self,
        *,
        in_features: int,
        task_names: Sequence[str],
        num_experts: int,
        expert_hidden: Sequence[int],
        make_gate: MakeGate,
        dropout: float = 0.0,
        form: Form = "auto",
    ) -> None:
        super().__init__()
        self.task_names = tuple(task_names)
        self.expert_names = tuple(f"shared.{expert}" for expert in range(num_experts))
        num_tasks = len(self.task_names)
        self.layer = ExpertLayer(
            # The tasks own no experts; the last group owns all.
            experts_per_group=[0] * num_tasks + [num_experts],
            mask_GE=[[True] * num_experts] * num_tasks,
            in_features=in_features,
            hidden=expert_hidden,
            make_gate=make_gate,
            dropout=dropout,
            form=form,
        )
        self.out_features = self.layer.out_features

    def forward(self, x: Tensor | SidedInput) -> tuple[list[Tensor], list[GateUse]]:
        """One h_BH per task; the use of the tasks' gates."""
        h, weights_BGE = self.layer([x] * (len(self.task_names) + 1))
        return h, [GateUse(level=0, gates=self.task_names, experts=self.expert_names, weights_BGE=weights_BGE)]
