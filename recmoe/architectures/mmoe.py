"""MMoE: experts shared by all tasks, mixed by one gate per task.

Ma et al., KDD 2018, https://doi.org/10.1145/3219819.3220007, equations 6-7.
"""

# B rows, D input width, H expert width

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

from pydantic import PositiveInt
from torch import Tensor, nn

from recmoe.architectures.seam import LevelFlow
from recmoe.architectures.towers import TowerKind
from recmoe.balancing.fork import Fork
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput
from recmoe.moe.mixture import MakeLayer, MixtureConfig


class MMoEConfig(MixtureConfig, TowerKind):
    """Experts shared by all tasks, mixed by one gate per task."""

    can_fork: ClassVar[bool] = True
    kind: Literal["mmoe"] = "mmoe"
    num_experts: PositiveInt = 8
    """Experts that all tasks share."""

    def keeping(self, counts: Mapping[str, int]) -> Self:
        """With fewer experts; see ``ArchitectureKind``."""
        return self.model_copy(update={"num_experts": counts["shared"]})

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "MMoE":
        """The model, with weights drawn from torch's global generator."""
        return MMoE(in_features=in_features, task_names=task_names, num_experts=self.num_experts, make_layer=self.layer)

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow]:
        """Every task moves what all share."""
        return [LevelFlow({task: {"shared"} for task in task_names})]


class MMoE(nn.Module):
    """h_t = Σ_e g_t(x)_e · f_e(x) for every task t.

    Args:
        in_features: D.
        task_names: one gate each, in this order.
        num_experts: experts that all tasks share.
        make_layer: builds experts and gates.
    """

    def __init__(self, *, in_features: int, task_names: Sequence[str], num_experts: int, make_layer: MakeLayer) -> None:
        super().__init__()
        self.layer = make_layer(
            experts={f"shared.{expert}": 0 for expert in range(num_experts)},
            gates=dict.fromkeys(task_names, 0),
            mask_GE=[[True] * num_experts] * len(task_names),
            in_features=in_features,
        )
        self.out_features = self.layer.out_features

    def fork_shared(self, fork: Fork) -> None:
        """Let the gates read copies of the experts."""
        self.layer.fork = fork

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:
        """One h_BH per task; the use of the tasks' gates."""
        h, use = self.layer([x], groups)
        return h, [use]
