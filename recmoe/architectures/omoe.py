"""OMoE: one gate mixes the experts for all tasks.

Ma et al., KDD 2018, https://doi.org/10.1145/3219819.3220007, section 4.2 (one-gate MoE).
"""

# B rows, D input width, H expert width

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

from pydantic import PositiveInt
from torch import Tensor, nn

from recmoe.architectures.seam import LevelFlow
from recmoe.architectures.towers import TowerKind
from recmoe.balancing.fork import Fork, forked
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput
from recmoe.moe.mixture import MakeLayer, MixtureConfig


class OMoEConfig(MixtureConfig, TowerKind):
    """One gate mixes the experts for all tasks."""

    can_fork: ClassVar[bool] = True
    kind: Literal["omoe"] = "omoe"
    num_experts: PositiveInt = 8
    """Experts that all tasks share."""

    def keeping(self, counts: Mapping[str, int]) -> Self:
        """With fewer experts; see ``ArchitectureKind``."""
        return self.model_copy(update={"num_experts": counts["shared"]})

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "OMoE":
        """The model, with weights drawn from torch's global generator."""
        return OMoE(
            in_features=in_features,
            num_tasks=len(task_names),
            num_experts=self.num_experts,
            make_layer=self.layer,
        )

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow]:
        """Every task moves what all share."""
        return [LevelFlow({task: {"shared"} for task in task_names})]


class OMoE(nn.Module):
    """h = Σ_e g(x)_e · f_e(x), the same for every task.

    Args:
        in_features: D.
        num_tasks: how many tasks read the mixture.
        num_experts: experts that all tasks share.
        make_layer: builds experts and gate.
    """

    def __init__(self, *, in_features: int, num_tasks: int, num_experts: int, make_layer: MakeLayer) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.fork: Fork | None = None
        self.layer = make_layer(
            experts={f"shared.{expert}": 0 for expert in range(num_experts)},
            gates={"shared": 0},
            mask_GE=[[True] * num_experts],
            in_features=in_features,
        )
        self.out_features = self.layer.out_features

    def fork_shared(self, fork: Fork) -> None:
        """Let the tasks read copies of the representation."""
        self.fork = fork

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:
        """The same h_BH for every task; the use of the one gate."""
        h, use = self.layer([x], groups)
        return forked(h[0], self.num_tasks, self.fork), [use]
