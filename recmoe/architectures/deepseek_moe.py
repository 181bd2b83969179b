"""DeepSeekMoE: many small experts of which every row uses some, next to shared ones that every row uses.

Dai et al., ACL 2024, https://arxiv.org/abs/2401.06066, equations 9-11; shares that sum to one: DeepSeek-V3,
https://arxiv.org/abs/2412.19437, equations 12-15.
"""

# B rows, D input width, G gates, E experts, H expert width

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from recmoe.architectures.towers import TowerKind
from recmoe.balancing.fork import Fork
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates import GateConfig, TopKGateConfig
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput
from recmoe.moe.mixture import MakeLayer, MixtureConfig


class DeepSeekMoEConfig(MixtureConfig, TowerKind):
    """Many small experts of which every row uses some, next to shared ones that every row uses.

    In the paper's terms the defaults are 8 experts of (256, 128), each cut into m = 4 of a quarter of the hidden
    width; of the 32 a row and task uses 8, and 2 of these are the shared ones.
    """

    can_fork: ClassVar[bool] = True
    kind: Literal["deepseek_moe"] = "deepseek_moe"
    expert_hidden: tuple[PositiveInt, ...] = (64, 128)
    """Width of each layer of an expert, shared or routed."""
    num_shared_experts: PositiveInt = 2
    """Experts that every row and task uses."""
    num_routed_experts: PositiveInt = 30
    """Experts that a task's gate chooses from."""
    gate: GateConfig = TopKGateConfig(k=6)
    """How rows choose their routed experts."""
    mixes: Literal["outputs"] = "outputs"
    """Outputs of experts alone: weights are merged by shares, which those around the gates are not."""

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "DeepSeekMoE":
        """The model, with weights drawn from torch's global generator."""
        return DeepSeekMoE(
            in_features=in_features,
            task_names=task_names,
            num_shared_experts=self.num_shared_experts,
            num_routed_experts=self.num_routed_experts,
            make_layer=self.layer,
        )


class AlwaysOn(nn.Module):
    """v_GE = 1 for the experts that every row of every gate uses; see ``AroundGates``."""

    whole_GE: Tensor

    def __init__(self, mask_GE: Sequence[Sequence[bool]]) -> None:
        super().__init__()
        self.mask_GE = mask_GE
        self.register_buffer("whole_GE", torch.tensor(mask_GE, dtype=torch.float32), persistent=False)

    def forward(self) -> Tensor:
        """v_GE."""
        return self.whole_GE


class DeepSeekMoE(nn.Module):
    """h_t = Σ_s f_s(x) + Σ_e g_t(x)_e · f_e(x) for every task t: shared experts s, and the chosen of routed ones e.

    The paper's layer stands in a language model and has one output for a token. Tasks enter as in MMoE: all share the
    experts, and each has a gate of its own. Two more things differ. The paper adds the input of the layer to its
    output, which has another width here. And its shares are those of a softmax over all routed experts, so that the
    chosen ones sum to less than one; as in DeepSeek-V3 they are divided by their sum, like those of every gate here.

    Args:
        in_features: D.
        task_names: one gate each, in this order.
        num_shared_experts: experts that every row uses.
        num_routed_experts: experts that the gates choose from.
        make_layer: builds experts and gates.
    """

    def __init__(
        self,
        *,
        in_features: int,
        task_names: Sequence[str],
        num_shared_experts: int,
        num_routed_experts: int,
        make_layer: MakeLayer,
    ) -> None:
        super().__init__()
        shared = [f"shared.{expert}" for expert in range(num_shared_experts)]
        routed = [f"routed.{expert}" for expert in range(num_routed_experts)]
        is_shared_E = [True] * num_shared_experts + [False] * num_routed_experts
        self.layer = make_layer(
            experts=dict.fromkeys([*shared, *routed], 0),
            gates=dict.fromkeys(task_names, 0),
            mask_GE=[[not is_shared for is_shared in is_shared_E]] * len(task_names),
            in_features=in_features,
            around=AlwaysOn([is_shared_E] * len(task_names)),
        )
        self.out_features = self.layer.out_features

    def fork_shared(self, fork: Fork) -> None:
        """Let the tasks read copies of the experts, the shared ones and the routed ones."""
        self.layer.fork = fork

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:
        """One h_BH per task; the use of the tasks' gates, which do not see the shared experts."""
        h, use = self.layer([x], groups)
        return h, [use]
