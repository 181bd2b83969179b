"""OMoE: one gate mixes the experts for all tasks.

Ma et al., KDD 2018, https://doi.org/10.1145/3219819.3220007, section 4.2 (one-gate MoE).
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


class OMoEConfig(Config):
    """One gate mixes the experts for all tasks."""

    kind: Literal["omoe"] = "omoe"
    num_experts: PositiveInt = 8
    """Experts that all tasks share."""
    expert_hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128)
    """Width of each layer of an expert."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an expert's activations dropped in training."""
    gate: GateConfig = SoftmaxGateConfig()
    """How rows choose their experts."""

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "OMoE":
        """The model, with weights drawn from torch's global generator."""
        return OMoE(
            in_features=in_features,
            num_tasks=len(task_names),
            num_experts=self.num_experts,
            expert_hidden=self.expert_hidden,
            make_gate=self.gate.build,
            dropout=self.dropout,
        )


class OMoE(nn.Module):
    """h = Σ_e g(x)_e · f_e(x), the same for every task.

    Args:
        in_features: D.
        num_tasks: how many tasks read the mixture.
        num_experts: experts that all tasks share.
        expert_hidden: width of each layer of an expert; the last is H.
        make_gate: builds the gate.
        dropout: share of an expert's activations dropped in training.
        form: how the experts are computed, see ``Experts``.
    """

    def __init__(
        self,
        *,
        in_features: int,
        num_tasks: int,
        num_experts: int,
        expert_hidden: Sequence[int],
        make_gate: MakeGate,
        dropout: float = 0.0,
        form: Form = "auto",
    ) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.expert_names = tuple(f"shared.{expert}" for expert in range(num_experts))
        self.layer = ExpertLayer(
            experts_per_group=[num_experts],
            mask_GE=[[True] * num_experts],
            in_features=in_features,
            hidden=expert_hidden,
            make_gate=make_gate,
            dropout=dropout,
            form=form,
        )
        self.out_features = self.layer.out_features

    def forward(self, x: Tensor | SidedInput) -> tuple[list[Tensor], list[GateUse]]:
        """The same h_BH for every task; the use of the one gate."""
        h, weights_BGE = self.layer([x])
        use = GateUse(level=0, gates=("shared",), experts=self.expert_names, weights_BGE=weights_BGE)
        return h * self.num_tasks, [use]
