"""CGC: every task mixes experts of its own with experts that all tasks share.

Customized gate control: Tang et al., RecSys 2020, https://doi.org/10.1145/3383313.3412236, equations 1-4.
"""

# B rows, D input width, H expert width

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from recmoe.config import Config
from recmoe.errors import ConfigError
from recmoe.moe.expert_layer import ExpertLayer, GateUse, MakeGate
from recmoe.moe.experts import Form
from recmoe.moe.gates import GateConfig, SoftmaxGateConfig
from recmoe.moe.linear import SidedInput

SHARED = "shared"


class CGCConfig(Config):
    """Every task mixes experts of its own with experts that all tasks share."""

    kind: Literal["cgc"] = "cgc"
    num_shared_experts: PositiveInt = 2
    """Experts that all tasks share."""
    num_task_experts: NonNegativeInt | dict[str, NonNegativeInt] = 2
    """Experts of each task: one number for all tasks, or a number by task name."""
    expert_hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128)
    """Width of each layer of an expert."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an expert's activations dropped in training."""
    gate: GateConfig = SoftmaxGateConfig()
    """How rows choose their experts."""

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "CGC":
        """The model, with weights drawn from torch's global generator."""
        return CGC(
            in_features=in_features,
            num_task_experts=experts_by_task(self.num_task_experts, task_names),
            num_shared_experts=self.num_shared_experts,
            expert_hidden=self.expert_hidden,
            make_gate=self.gate.build,
            dropout=self.dropout,
        )


class CGC(nn.Module):
    """h_t = Σ_e g_t(x)_e · f_e(x), over the experts of task t and the shared ones.

    Args:
        in_features: D.
        num_task_experts: experts of each task, by name; the order of the tasks.
        num_shared_experts: experts that all tasks share.
        expert_hidden: width of each layer of an expert; the last is H.
        make_gate: builds a gate.
        dropout: share of an expert's activations dropped in training.
        form: how the experts are computed, see ``Experts``.
    """

    def __init__(
        self,
        *,
        in_features: int,
        num_task_experts: Mapping[str, int],
        num_shared_experts: int,
        expert_hidden: Sequence[int],
        make_gate: MakeGate,
        dropout: float = 0.0,
        form: Form = "auto",
    ) -> None:
        super().__init__()
        self.task_names = tuple(num_task_experts)
        self.expert_names = expert_names(num_task_experts, num_shared_experts)
        counts = list(num_task_experts.values())
        self.layer = ExpertLayer(
            experts_per_group=[*counts, num_shared_experts],
            mask_GE=own_and_shared_mask(counts, num_shared_experts),
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
        use = GateUse(
            level=0,
            gates=self.task_names,
            experts=self.expert_names,
            weights_BGE=weights_BGE,
            visible_GE=self.layer.visible_GE,
        )
        return h, [use]


def own_and_shared_mask(num_task_experts: Sequence[int], num_shared_experts: int) -> list[list[bool]]:
    """A row per task: which experts its gate sees, with the experts task by task, then the shared ones."""
    return [
        [own == task for own, count in enumerate(num_task_experts) for _ in range(count)] + [True] * num_shared_experts
        for task in range(len(num_task_experts))
    ]


def expert_names(num_task_experts: Mapping[str, int], num_shared_experts: int) -> tuple[str, ...]:
    """Such as ctr.0, ctr.1, cvr.0, shared.0, in the order of the mask's columns."""
    owners = [*num_task_experts.items(), (SHARED, num_shared_experts)]
    return tuple(f"{owner}.{expert}" for owner, count in owners for expert in range(count))


def experts_by_task(num_task_experts: int | Mapping[str, int], task_names: Sequence[str]) -> dict[str, int]:
    """How many experts each task owns, in the order of the tasks.

    Raises:
        ConfigError: numbers by name lack a task, or name one that does not exist.
    """
    if isinstance(num_task_experts, int):
        return dict.fromkeys(task_names, num_task_experts)
    missing = [task for task in task_names if task not in num_task_experts]
    unknown = [task for task in num_task_experts if task not in task_names]
    if missing or unknown:
        raise ConfigError(
            f"num_task_experts must give one number for each of the tasks {', '.join(task_names)}; "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
        )
    return {task: num_task_experts[task] for task in task_names}
