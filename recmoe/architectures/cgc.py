"""CGC: every task mixes experts of its own with experts that all tasks share.

Customized gate control: Tang et al., RecSys 2020, https://doi.org/10.1145/3383313.3412236, equations 1-4.
"""

# B rows, D input width, H expert width

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal, Self

from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from recmoe.architectures.seam import ArchitectureKind, LevelFlow
from recmoe.architectures.towers import TowerKind
from recmoe.balancing.fork import Fork
from recmoe.errors import ConfigError
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput
from recmoe.moe.mixture import MakeLayer, MixtureConfig
from recmoe.tasks.funnel import TaskSet

SHARED = "shared"


class OwnAndSharedConfig(MixtureConfig, ArchitectureKind):
    """Experts that a task owns beside those that all tasks share."""

    num_shared_experts: PositiveInt = 2
    """Experts that all tasks share, per level."""
    num_task_experts: NonNegativeInt | dict[str, NonNegativeInt] = 2
    """Experts of each task, per level: one number for all tasks, or a number by task name."""

    def keeping(self, counts: Mapping[str, int]) -> Self:
        """With fewer experts of each task, and shared ones; see ``ArchitectureKind``."""
        own: int | Mapping[str, int] = {owner: count for owner, count in counts.items() if owner != SHARED}
        if isinstance(self.num_task_experts, dict):
            own = {task: counts.get(task, 0) for task in self.num_task_experts}
        return self.model_copy(update={"num_task_experts": own or 0, "num_shared_experts": counts[SHARED]})

    def task_problems(self, tasks: TaskSet, groups: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Numbers of experts by task that do not name the tasks with a tower."""
        yield from super().task_problems(tasks, groups)
        try:
            experts_by_task(self.num_task_experts, tasks.tower_names)
        except ConfigError as error:
            yield "num_task_experts", str(error)


class CGCConfig(OwnAndSharedConfig, TowerKind):
    """Every task mixes experts of its own with experts that all tasks share."""

    can_fork: ClassVar[bool] = True
    kind: Literal["cgc"] = "cgc"

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "CGC":
        """The model, with weights drawn from torch's global generator."""
        return CGC(
            in_features=in_features,
            num_task_experts=experts_by_task(self.num_task_experts, task_names),
            num_shared_experts=self.num_shared_experts,
            make_layer=self.layer,
        )

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow]:
        """Every task moves its own experts and the shared ones."""
        return [LevelFlow(own_and_shared(task_names))]


class CGC(nn.Module):
    """h_t = Σ_e g_t(x)_e · f_e(x), over the experts of task t and the shared ones.

    Args:
        in_features: D.
        num_task_experts: experts of each task, by name; the order of the tasks.
        num_shared_experts: experts that all tasks share.
        make_layer: builds experts and gates.
    """

    def __init__(
        self,
        *,
        in_features: int,
        num_task_experts: Mapping[str, int],
        num_shared_experts: int,
        make_layer: MakeLayer,
    ) -> None:
        super().__init__()
        self.layer = make_layer(
            experts=dict.fromkeys(expert_names(num_task_experts, num_shared_experts), 0),
            gates=dict.fromkeys(num_task_experts, 0),
            mask_GE=own_and_shared_mask(list(num_task_experts.values()), num_shared_experts),
            in_features=in_features,
        )
        self.out_features = self.layer.out_features

    def fork_shared(self, fork: Fork) -> None:
        """Let the gates read copies of the experts that tasks share."""
        self.layer.fork = fork

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:
        """One h_BH per task; the use of the tasks' gates."""
        h, use = self.layer([x], groups)
        return h, [use]


def own_and_shared_mask(num_task_experts: Sequence[int], num_shared_experts: int) -> list[list[bool]]:
    """A row per task: which experts its gate sees, with the experts task by task, then the shared ones."""
    return [
        [own == task for own, count in enumerate(num_task_experts) for _ in range(count)] + [True] * num_shared_experts
        for task in range(len(num_task_experts))
    ]


def own_and_shared(task_names: Sequence[str]) -> dict[str, set[str]]:
    """By task, the owners of the experts that it sees."""
    return {task: {task, SHARED} for task in task_names}


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
