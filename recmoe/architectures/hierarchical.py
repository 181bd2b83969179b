"""A hierarchical mixture: a gate chooses between groups of experts, and each group has a gate of its own.

Jordan & Jacobs, Neural Computation 1994, https://doi.org/10.1162/neco.1994.6.2.181, equations 1-5; with sparse gates:
Shazeer et al., ICLR 2017, https://arxiv.org/abs/1701.06538, appendix B, equation 12.
"""

# B rows, D input width, V experts, A groups, H expert width

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from recmoe.architectures.seam import LevelFlow
from recmoe.architectures.towers import TowerKind
from recmoe.axes import PartNames, WeightAxes, name_experts
from recmoe.balancing.fork import Fork
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates.gate import Gate, MakeGate, Weighed
from recmoe.moe.gates.weighing import weigh_one
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput
from recmoe.moe.mixture import MakeLayer, MixtureConfig


class HierarchicalConfig(MixtureConfig, TowerKind):
    """Groups of experts that all tasks share; each task has a gate over the groups, and one in each group.

    Both kinds of gates are as ``gate`` says: ``{kind: top_k, k: 2}`` takes two experts of each of two groups.
    """

    can_fork: ClassVar[bool] = True
    kind: Literal["hierarchical"] = "hierarchical"
    num_groups: Annotated[int, Field(ge=2)] = 4
    """Groups of experts."""
    num_group_experts: Annotated[int, Field(ge=2)] = 2
    """Experts of each group."""

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "Hierarchical":
        """The model, with weights drawn from torch's global generator."""
        return Hierarchical(
            in_features=in_features,
            task_names=task_names,
            num_groups=self.num_groups,
            num_group_experts=self.num_group_experts,
            make_layer=self.layer,
            make_gate=self.gate.build,
        )

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow]:
        """Every task has a gate over all groups."""
        groups = [f"group{group}" for group in range(self.num_groups)]
        return [LevelFlow(dict.fromkeys(task_names, groups))]


class HierarchicalGate(nn.Module):
    """p[a, e] = g(x)_a · g_a(x)_e: the share of its group, times its share in the group; see ``Gate``.

    Args:
        in_features: D.
        num_experts: V.
        groups: by name of a group, the names of its experts, group after group.
        make_gate: builds the gate over the groups, and the one in each group.
    """

    def __init__(
        self, *, in_features: int, num_experts: int, groups: Mapping[str, Sequence[str]], make_gate: MakeGate
    ) -> None:
        super().__init__()
        assert sum(map(len, groups.values())) == num_experts, "a group for every expert"
        self.group_names = tuple(groups)
        self.expert_names = [tuple(names) for names in groups.values()]
        primary = make_gate(in_features=in_features, num_experts=len(groups))
        secondary = [make_gate(in_features=in_features, num_experts=len(names)) for names in groups.values()]
        # A protocol cannot ask for nn.Module, which gates are.
        self.primary = cast(nn.Module, primary)
        self.secondary = nn.ModuleList(cast(nn.Module, gate) for gate in secondary)

    @property
    def _all(self) -> list[Gate]:
        return [cast(Gate, gate) for gate in (self.primary, *self.secondary)]

    @property
    def is_sparse(self) -> bool:
        """Where one of its gates is, in the mode that it is in."""
        return any(gate.is_sparse for gate in self._all)

    @property
    def num_used(self) -> int:
        """Those of the groups that use most, of as many groups as may be chosen."""
        primary, *secondary = self._all
        return sum(sorted((gate.num_used for gate in secondary), reverse=True)[: primary.num_used])

    @property
    def sums_to_one(self) -> bool:
        """Where all of its gates do."""
        return all(gate.sums_to_one for gate in self._all)

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:
        """p_BV in float32, not negative; see ``Gate``."""
        return self.weigh(x, groups).weights_BV

    def weigh(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Weighed:
        """The same weights, with what each of its gates gives; see ``TellsMore``."""
        primary, *secondary = (weigh_one(gate, x, groups) for gate in self._all)
        shares = torch.split(primary.weights_BV, 1, dim=1)
        weights = [share_B1 * given.weights_BV for share_B1, given in zip(shares, secondary, strict=True)]
        inner = [_where_used(given, share_B1) for share_B1, given in zip(shares, secondary, strict=True)]
        return Weighed(torch.cat(weights, dim=1), inner=(primary, *inner))

    def linear_form(self) -> None:
        """It is no single product; see ``Gate``."""

    def weight_axes(self) -> WeightAxes:
        """The gate over the groups gives groups, the others their group's experts."""
        outputs = {"primary": self.group_names}
        outputs |= {f"secondary.{index}": names for index, names in enumerate(self.expert_names)}
        return {
            f"{path}.{name}": tuple(name_experts(labels, names) for labels in of_weight)
            for path, names in outputs.items()
            for name, of_weight in cast(Gate, self.get_submodule(path)).weight_axes().items()
        }

    def part_names(self) -> PartNames:
        """Every group has a gate."""
        return {"secondary": self.group_names}


def _where_used(given: Weighed, share_B1: Tensor) -> Weighed:
    """What a gate in a group gives; its draws count in the rows that use the group."""
    if given.policy is None:
        return given
    return given._replace(policy=given.policy._replace(is_used_B=share_B1[:, 0] > 0))


class Hierarchical(nn.Module):
    """h_t = Σ_a g_t(x)_a · Σ_(e of a) g_(t,a)(x)_e · f_e(x) for every task t, with groups a of experts.

    The papers have one output; as in MMoE, every task has gates of its own over experts that all share.

    Args:
        in_features: D.
        task_names: gates of each, in this order.
        num_groups: A.
        num_group_experts: experts of each group.
        make_layer: builds experts and gates.
        make_gate: builds the gates that a task's gate is made of.
    """

    def __init__(
        self,
        *,
        in_features: int,
        task_names: Sequence[str],
        num_groups: int,
        num_group_experts: int,
        make_layer: MakeLayer,
        make_gate: MakeGate,
    ) -> None:
        super().__init__()
        groups = {
            f"group{group}": [f"group{group}.{expert}" for expert in range(num_group_experts)]
            for group in range(num_groups)
        }

        def make_hierarchical(*, in_features: int, num_experts: int) -> Gate:
            return HierarchicalGate(
                in_features=in_features, num_experts=num_experts, groups=groups, make_gate=make_gate
            )

        self.layer = make_layer(
            experts={name: 0 for names in groups.values() for name in names},
            gates=dict.fromkeys(task_names, 0),
            mask_GE=[[True] * (num_groups * num_group_experts)] * len(task_names),
            in_features=in_features,
            make_gate=make_hierarchical,
        )
        self.out_features = self.layer.out_features

    def fork_shared(self, fork: Fork) -> None:
        """Let the gates read copies of the experts."""
        self.layer.fork = fork

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:
        """One h_BH per task; the use of the tasks' gates, by expert."""
        h, use = self.layer([x], groups)
        return h, [use]
