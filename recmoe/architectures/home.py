"""HoME: tasks in groups, two levels of experts, and gates that let a task's own experts learn.

Hierarchy of multi-gate experts: Wang et al., KDD 2025, https://arxiv.org/abs/2408.05430, section 3.
"""

# B rows, D width of an input, V experts, H expert width, L low-rank gates, R their rank

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from recmoe.architectures.cgc import SHARED
from recmoe.architectures.seam import LevelFlow
from recmoe.architectures.towers import TowerKind
from recmoe.axes import EXPERTS, PartNames, WeightAxes
from recmoe.errors import ConfigError
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts import ExpertConfig
from recmoe.moe.experts.normalized import NormalizedExpertConfig
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates.gate import Gate, LinearForm, MakeGate
from recmoe.moe.gates.softmax import gate_logits, new_gate_weight
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput, linear, rows_of
from recmoe.moe.mixture import MakeLayer, MixtureConfig
from recmoe.tasks.funnel import TaskSet


class HoMEConfig(MixtureConfig, TowerKind):
    """Tasks in groups: experts of all, of a group and of a task, on two levels, with gates on what they read."""

    kind: Literal["home"] = "home"
    expert: ExpertConfig | Annotated[tuple[ExpertConfig, ...], Field(min_length=1)] = NormalizedExpertConfig()
    """What an expert is; of a list, each owner's experts take one kind after the other."""
    groups: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Tasks that resemble each other, such as ``watching: [finish, seconds]``; one group of all tasks by default."""
    num_shared_experts: PositiveInt = 2
    """Experts that all tasks share, per level."""
    num_group_experts: PositiveInt = 2
    """Experts of each group, per level."""
    num_task_experts: PositiveInt = 2
    """Experts of each task, on the upper level."""
    num_feature_gates: PositiveInt = 2
    """Low-rank gates that scale what the experts of an owner read."""
    feature_rank: PositiveInt = 16
    """Their rank."""

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "HoME":
        """The model, with weights drawn from torch's global generator."""
        return HoME(
            in_features=in_features,
            group_of_task=group_of_task(self.groups, task_names),
            num_experts=(self.num_shared_experts, self.num_group_experts, self.num_task_experts),
            num_feature_gates=self.num_feature_gates,
            feature_rank=self.feature_rank,
            make_layer=partial(self.layer, make_gate=partial(make_self_gate, make_gate=self.gate.build)),
        )

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow]:
        """Below, what groups share holds every expert; above, a task has its own, its group's and the shared ones."""
        groups = {task: f"group {group}" for task, group in group_of_task(self.groups, task_names).items()}
        below = {SHARED, *groups.values()}
        gates = [*task_names, *(f"{task} alone" for task in task_names)]
        return [
            LevelFlow(dict.fromkeys(task_names, below), dict.fromkeys(gates, below)),
            LevelFlow({task: {SHARED, group, task} for task, group in groups.items()}),
        ]

    def task_problems(self, tasks: TaskSet, groups: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Groups that do not hold every task with a tower once."""
        yield from super().task_problems(tasks, groups)
        try:
            group_of_task(self.groups, tasks.tower_names)
        except ConfigError as error:
            yield "groups", str(error)


def group_of_task(groups: Mapping[str, Sequence[str]], task_names: Sequence[str]) -> dict[str, str]:
    """The group of each task, in the order of the tasks; without groups, one for all.

    Raises:
        ConfigError: a task is in no group or in several, or a group names one that does not exist.
    """
    if not groups:
        return dict.fromkeys(task_names, "all")
    named = list(chain.from_iterable(groups.values()))
    missing = [task for task in task_names if task not in named]
    twice = [task for task in task_names if named.count(task) > 1]
    unknown = [task for task in dict.fromkeys(named) if task not in task_names]
    if missing or twice or unknown:
        raise ConfigError(
            f"groups must hold each of the tasks {', '.join(task_names)} once; "
            f"missing: {', '.join(missing) or 'none'}; more than once: {', '.join(twice) or 'none'}; "
            f"unknown: {', '.join(unknown) or 'none'}"
        )
    of_task = {task: group for group, tasks in groups.items() for task in tasks}
    return {task: of_task[task] for task in task_names}


class FeatureGate(nn.Module):
    """v ⊗ Σ_l softmax(W · v)_l · 2σ(A_l · B_l · v): experts read what is scaled for them, each number by 0 to 2.

    The paper takes R = D / L. Here it is a number of the config, since weights keep their shape when features come.

    Args:
        in_features: D.
        num_gates: L.
        rank: R.
    """

    def __init__(self, *, in_features: int, num_gates: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(in_features, num_gates * rank, bias=False)
        bound = 1.0 / rank**0.5
        self.up_LDR = nn.Parameter(torch.empty(num_gates, in_features, rank).uniform_(-bound, bound))
        self.choose = nn.Linear(in_features, num_gates, bias=False) if num_gates > 1 else None

    def weight_axes(self) -> WeightAxes:
        """None that means something outside of the gate, but for columns of the input."""
        return {"up_LDR": (None, None, None)}

    def forward(self, x: Tensor | SidedInput) -> Tensor:
        """The rows of x, scaled."""
        inner_BLR = linear(x, self.down.weight).view(-1, *self.up_LDR.shape[::2])
        factor_BLD = 2.0 * torch.sigmoid(torch.einsum("blr,ldr->bld", inner_BLR, self.up_LDR))
        if self.choose is None:
            return factor_BLD[:, 0] * rows_of(x)
        p_BL = torch.softmax(gate_logits(x, self.choose.weight), dim=1).to(factor_BLD.dtype)
        return torch.einsum("bl,bld->bd", p_BL, factor_BLD) * rows_of(x)


class SigmoidGate(nn.Module):
    """p = σ(x · w), for a gate that sees one expert; see ``Gate``. It does not sum to one.

    Args:
        in_features: D.
    """

    is_sparse = False
    num_used = 1
    sums_to_one = False

    def __init__(self, *, in_features: int) -> None:
        super().__init__()
        self.weight_VD = new_gate_weight(in_features=in_features, num_experts=1)

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:  # noqa: ARG002
        """p_BV in float32, from 0 to 1."""
        return torch.sigmoid(gate_logits(x, self.weight_VD))

    def linear_form(self) -> LinearForm:
        """The product, and its sigmoid; see ``Gate``."""
        return LinearForm(self.weight_VD, torch.sigmoid)

    def weight_axes(self) -> WeightAxes:
        """The expert that it sees; see ``Gate``."""
        return {"weight_VD": (EXPERTS, None)}


def make_self_gate(*, in_features: int, num_experts: int, make_gate: MakeGate) -> Gate:
    """As the mixture makes it; a share of one expert, which would be 1 in every row, is a sigmoid instead."""
    if num_experts == 1:
        return SigmoidGate(in_features=in_features)
    return make_gate(in_features=in_features, num_experts=num_experts)


class HoME(nn.Module):
    """A lower level for groups g of tasks, and an upper one for tasks t, with a = all experts of an owner::

        z_g = g_g(x) · [y_shared, y_g] + s_g(x) · [y_g],     z_shared = g_shared(x) · [y_shared, all y_g]
        h_t = g_t(z) · [y'_shared, y'_g, y'_t] + s_t(z) · [y'_t],     z = [z_g; z_shared] of the group of t

        y_o = f(φ_o(x)),     y'_shared = f(φ'(z_shared)),     y'_g = f(φ'_g(z_g)),     y'_t = f(φ'_t(z_g))

    The masks keep a task from the experts of other groups. φ are feature gates, one per owner and level. s are self
    gates, over the owner's own experts: what they give is added, so that these learn even where the gate g prefers
    shared ones. A self gate over one expert is a sigmoid. Norm and Swish are in the experts; see ``NormalizedExpert``.

    The paper leaves open what a self gate of the upper level reads; here it is what the task's other gate does.

    Args:
        in_features: D.
        group_of_task: by task; the order of the tasks.
        num_experts: of all tasks and of each group, per level; of each task.
        num_feature_gates, feature_rank: see ``FeatureGate``.
        make_layer: builds experts and gates of a level.
    """

    def __init__(
        self,
        *,
        in_features: int,
        group_of_task: Mapping[str, str],
        num_experts: tuple[int, int, int],
        num_feature_gates: int,
        feature_rank: int,
        make_layer: MakeLayer,
    ) -> None:
        super().__init__()
        num_shared, num_group, num_task = num_experts
        self.num_tasks = len(group_of_task)
        # A group and a task may have one name.
        groups = [f"group {group}" for group in dict.fromkeys(group_of_task.values())]
        of_task = {task: f"group {group}" for task, group in group_of_task.items()}
        lower = {SHARED: num_shared, **dict.fromkeys(groups, num_group)}
        upper = {**lower, **dict.fromkeys(of_task, num_task)}
        self.lower_owners, self.upper_owners = tuple(lower), tuple(upper)
        self.group_of_task = [groups.index(group) for group in of_task.values()]
        sizes = {"num_gates": num_feature_gates, "rank": feature_rank}
        self.lower_features = nn.ModuleList(FeatureGate(in_features=in_features, **sizes) for _ in lower)
        self.lower = _layer(
            make_layer,
            owners=lower,
            sees={**{group: (SHARED, group) for group in groups}, SHARED: tuple(lower)},
            reads=dict.fromkeys(lower, 0),
            alone=groups,
            in_features=in_features,
            gate_features=in_features,
            level=0,
        )
        width = self.lower.out_features
        self.upper_features = nn.ModuleList(FeatureGate(in_features=width, **sizes) for _ in upper)
        self.upper = _layer(
            make_layer,
            owners=upper,
            sees={task: (SHARED, group, task) for task, group in of_task.items()},
            reads={task: groups.index(group) for task, group in of_task.items()},
            alone=list(of_task),
            in_features=width,
            gate_features=2 * width,
            level=1,
        )
        self.out_features = self.upper.out_features

    def part_names(self) -> PartNames:
        """Every owner of experts has a feature gate per level."""
        return {"lower_features": self.lower_owners, "upper_features": self.upper_owners}

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:
        """One h_BH per task; the use of the gates of groups and of tasks, self gates last."""
        z, lower = self.lower([gate(x) for gate in self.lower_features], groups, gate_inputs=[x])
        num_groups = len(self.lower_owners) - 1
        shared_BH = z[num_groups]
        of_group = [z_BH + own_BH for z_BH, own_BH in zip(z[:num_groups], z[num_groups + 1 :], strict=True)]
        read = [shared_BH, *of_group, *(of_group[group] for group in self.group_of_task)]
        h, upper = self.upper(
            [gate(z_BH) for gate, z_BH in zip(self.upper_features, read, strict=True)],
            groups,
            gate_inputs=[torch.cat([z_BH, shared_BH], dim=1) for z_BH in of_group],
        )
        return [h_BH + own_BH for h_BH, own_BH in zip(h[: self.num_tasks], h[self.num_tasks :], strict=True)], [
            lower,
            upper,
        ]


def _layer(
    make_layer: MakeLayer,
    *,
    owners: Mapping[str, int],
    sees: Mapping[str, Sequence[str]],
    reads: Mapping[str, int],
    alone: Sequence[str],
    in_features: int,
    gate_features: int,
    level: int,
) -> ExpertLayer:
    """A level: each owner's experts read an input of its own.

    Args:
        owners: how many experts each has.
        sees: by gate, whose experts it sees.
        reads: which of the gates' inputs each gate reads.
        alone: owners with a self gate, which reads what their other gate does.
    """
    owner_of_expert = [owner for owner, count in owners.items() for _ in range(count)]
    seen = [*sees.values(), *((owner,) for owner in alone)]
    return make_layer(
        experts={
            f"{owner}.{expert}": index for index, (owner, count) in enumerate(owners.items()) for expert in range(count)
        },
        gates={**{gate: reads[gate] for gate in sees}, **{f"{owner} alone": reads[owner] for owner in alone}},
        mask_GE=[[owner in of_gate for owner in owner_of_expert] for of_gate in seen],
        in_features=in_features,
        gate_features=gate_features,
        level=level,
    )
