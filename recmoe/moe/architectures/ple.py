"""PLE: levels of CGC; a shared gate carries what all experts found to the next level.

Progressive layered extraction: Tang et al., RecSys 2020, https://doi.org/10.1145/3383313.3412236, equations 5-8.
"""

# B rows, D input width, H expert width

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from recmoe.config import Config
from recmoe.moe.architectures.cgc import SHARED, expert_names, experts_by_task, own_and_shared_mask
from recmoe.moe.expert_layer import ExpertLayer, GateUse, MakeGate
from recmoe.moe.experts import Form
from recmoe.moe.gates import GateConfig, SoftmaxGateConfig
from recmoe.moe.linear import SidedInput


class PLEConfig(Config):
    """Levels of CGC; a shared gate carries what all experts found to the next level."""

    kind: Literal["ple"] = "ple"
    num_levels: PositiveInt = 2
    """Extraction levels; one level is CGC."""
    num_shared_experts: PositiveInt = 2
    """Experts per level that all tasks share."""
    num_task_experts: NonNegativeInt | dict[str, NonNegativeInt] = 2
    """Experts of each task per level: one number for all tasks, or a number by task name."""
    expert_hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128)
    """Width of each layer of an expert, the same at every level."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an expert's activations dropped in training."""
    gate: GateConfig = SoftmaxGateConfig()
    """How rows choose their experts."""

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "PLE":
        """The model, with weights drawn from torch's global generator."""
        return PLE(
            in_features=in_features,
            num_levels=self.num_levels,
            num_task_experts=experts_by_task(self.num_task_experts, task_names),
            num_shared_experts=self.num_shared_experts,
            expert_hidden=self.expert_hidden,
            make_gate=self.gate.build,
            dropout=self.dropout,
        )


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
        expert_hidden: width of each layer of an expert; the last is H.
        make_gate: builds a gate.
        dropout: share of an expert's activations dropped in training.
        form: how the experts are computed, see ``Experts``.
    """

    def __init__(
        self,
        *,
        in_features: int,
        num_levels: int,
        num_task_experts: Mapping[str, int],
        num_shared_experts: int,
        expert_hidden: Sequence[int],
        make_gate: MakeGate,
        dropout: float = 0.0,
        form: Form = "auto",
    ) -> None:
        super().__init__()
        assert num_levels > 0, "at least one level is needed"
        self.task_names = tuple(num_task_experts)
        self.expert_names = expert_names(num_task_experts, num_shared_experts)
        counts = list(num_task_experts.values())
        task_rows = own_and_shared_mask(counts, num_shared_experts)
        shared_row = [True] * len(self.expert_names)
        self.levels = nn.ModuleList(
            ExpertLayer(
                experts_per_group=[*counts, num_shared_experts],
                mask_GE=task_rows if level == num_levels - 1 else [*task_rows, shared_row],
                in_features=in_features if level == 0 else expert_hidden[-1],
                hidden=expert_hidden,
                make_gate=make_gate,
                dropout=dropout,
                form=form,
            )
            for level in range(num_levels)
        )
        self.out_features = expert_hidden[-1]

    def forward(self, x: Tensor | SidedInput) -> tuple[list[Tensor], list[GateUse]]:
        """One h_BH per task; the use of the gates at every level, the shared gate last."""
        streams: list[Tensor | SidedInput] = [x] * (len(self.task_names) + 1)
        h: list[Tensor] = []
        uses = []
        for level, layer in enumerate(self.levels):
            assert isinstance(layer, ExpertLayer)
            h, weights_BGE = layer(streams)
            streams = [*h]
            gates = (*self.task_names, SHARED)[: len(h)]
            uses.append(
                GateUse(
                    level=level,
                    gates=gates,
                    experts=self.expert_names,
                    weights_BGE=weights_BGE,
                    visible_GE=layer.visible_GE,
                )
            )
        return h, uses
