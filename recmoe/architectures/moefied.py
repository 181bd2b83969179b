"""A dense network whose hidden units are shared out among experts, of which every row uses some.

MoEfication: Zhang et al., Findings of ACL 2022, https://arxiv.org/abs/2110.01786, sections 3.1-3.3.
"""

# B rows, D input width, Z width of what is split, U hidden units of an expert, V = E experts, H width of the output

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from recmoe.architectures.seam import LevelFlow
from recmoe.architectures.towers import TowerKind
from recmoe.axes import EXPERTS, PartNames, WeightAxes
from recmoe.balancing.fork import Fork, forked
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts.stack import SeparateExperts
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates.gate import LinearForm
from recmoe.moe.gates.softmax import gate_logits, new_gate_weight
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput, linear


class MoefiedConfig(TowerKind):
    """A dense network whose last but one layer is split into experts; what ``recmoe moefy`` makes."""

    can_fork: ClassVar[bool] = True
    kind: Literal["moefied"] = "moefied"
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=2)] = (256, 128)
    """Width of each layer of the network; the units of the last but one are split."""
    num_experts: PositiveInt = 8
    """Parts that these units are split into, of one size."""
    k: PositiveInt = 2
    """Parts that a row uses."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of activations dropped in training; ``recmoe moefy`` takes that of the network."""

    @model_validator(mode="after")
    def _splits(self) -> Self:
        if self.hidden[-2] % self.num_experts:
            raise ValueError(
                f"the {self.hidden[-2]} units of the last but one layer of hidden cannot be split into "
                f"num_experts = {self.num_experts} parts of one size; choose a number that divides them"
            )
        if self.k > self.num_experts:
            raise ValueError(f"a row cannot use k = {self.k} of num_experts = {self.num_experts} parts; set k lower")
        return self

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "Moefied":
        """The network, with weights drawn from torch's global generator."""
        return Moefied(
            in_features=in_features,
            num_tasks=len(task_names),
            hidden=self.hidden,
            num_experts=self.num_experts,
            k=self.k,
            dropout=self.dropout,
        )

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow]:
        """Every task moves what all share."""
        return [LevelFlow({task: {"shared"} for task in task_names})]


class SplitExpert(nn.Module):
    """y_BH = W₂ · relu(W₁ · z + b₁) for some of the hidden units; the bias of the output belongs to all.

    Args:
        in_features: Z.
        num_units: U.
        out_features: H.
        of_units: hidden units of all experts, which the output's weights are drawn for.
        dropout: share of hidden units dropped in training.
    """

    def __init__(
        self, *, in_features: int, num_units: int, out_features: int, of_units: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.units = nn.Linear(in_features, num_units)
        self.output = nn.Linear(num_units, out_features, bias=False)
        bound = of_units**-0.5
        nn.init.uniform_(self.output.weight, -bound, bound)

    def forward(self, x: Tensor | SidedInput) -> Tensor:
        """y_BH."""
        a_BU = functional.relu(linear(x, self.units.weight, self.units.bias))
        return linear(functional.dropout(a_BU, self.dropout, self.training), self.output.weight)


class Router(nn.Module):
    """p_BV = 1 for the k experts with the largest W · z + b, 0 for the others; see ``Gate``.

    Nothing moves it in training: it is fitted to how active the units of each expert are.

    Args:
        in_features: Z.
        num_experts: V.
        k: experts used per row.
    """

    sums_to_one = False
    weight_VD: Tensor
    bias_V: Tensor

    def __init__(self, *, in_features: int, num_experts: int, k: int) -> None:
        super().__init__()
        self.num_used = k
        self.is_sparse = k < num_experts
        drawn_VD = new_gate_weight(in_features=in_features, num_experts=num_experts)
        self.register_buffer("weight_VD", drawn_VD.detach())
        self.register_buffer("bias_V", torch.zeros(num_experts))

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:  # noqa: ARG002
        """p_BV in float32."""
        return self._chosen(gate_logits(x, self.weight_VD))

    def linear_form(self) -> LinearForm:
        """The product, and the choice of its largest; see ``Gate``."""
        return LinearForm(self.weight_VD, self._chosen)

    def weight_axes(self) -> WeightAxes:
        """The experts that it sees; see ``Gate``."""
        return {"weight_VD": (EXPERTS, None), "bias_V": (EXPERTS,)}

    def _chosen(self, logits_BV: Tensor) -> Tensor:
        chosen_BK = (logits_BV + self.bias_V).topk(self.num_used, dim=1).indices
        return torch.zeros_like(logits_BV).scatter(1, chosen_BK, 1.0)


class Moefied(nn.Module):
    """h = relu(Σ_e p_e(z) · W₂ₑ · relu(W₁ₑ · z + b₁ₑ) + b₂), the same for every task; z is what lower layers make of x.

    With all experts chosen it is the network that was split: its sum over hidden units, in another order.

    Args:
        in_features: D.
        num_tasks: how many tasks read the representation.
        hidden: width of each layer; the units of the last but one are split, the last is H.
        num_experts: V.
        k: experts used per row.
        dropout: share of activations dropped in training, of every layer as in the network that was split.
    """

    def __init__(
        self,
        *,
        in_features: int,
        num_tasks: int,
        hidden: Sequence[int],
        num_experts: int,
        k: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.num_tasks = num_tasks
        self.fork: Fork | None = None
        *lower, num_units, self.out_features = hidden
        self.lower = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise((in_features, *lower)))
        width = lower[-1] if lower else in_features
        experts = [
            SplitExpert(
                in_features=width,
                num_units=num_units // num_experts,
                out_features=self.out_features,
                of_units=num_units,
                dropout=dropout,
            )
            for _ in range(num_experts)
        ]
        reads = {f"shared.{expert}": 0 for expert in range(num_experts)}
        self.layer = ExpertLayer(
            experts=SeparateExperts(experts, reads=reads, out_features=self.out_features),
            gates=[Router(in_features=width, num_experts=num_experts, k=k)],
            gate_names=["shared"],
            input_of_gate=[0],
            mask_GE=[[True] * num_experts],
        )
        self.bias_H = nn.Parameter(torch.empty(self.out_features).uniform_(-(num_units**-0.5), num_units**-0.5))

    def weight_axes(self) -> WeightAxes:
        """The bias is of no expert."""
        return {"bias_H": (None,)}

    def part_names(self) -> PartNames:
        """A lower layer is what it is by its position."""
        return {"lower": [str(layer) for layer in range(len(self.lower))]}

    def fork_shared(self, fork: Fork) -> None:
        """Let the tasks read copies of the representation."""
        self.fork = fork

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:
        """The same h_BH for every task; the use of the one gate."""
        h, use = self.layer([self.lowered(x)], groups)
        h_BH = functional.dropout(functional.relu(h[0] + self.bias_H), self.dropout, self.training)
        return forked(h_BH, self.num_tasks, self.fork), [use]

    def lowered(self, x: Tensor | SidedInput) -> Tensor | SidedInput:
        """z_BZ, what the split layer reads."""
        for layer in self.lower:
            assert isinstance(layer, nn.Linear)
            z_BO = functional.relu(linear(x, layer.weight, layer.bias))
            x = functional.dropout(z_BO, self.dropout, self.training)
        return x
