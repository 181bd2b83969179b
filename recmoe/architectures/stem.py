"""STEM: every task has embeddings of its own beside the shared ones, and no task moves those of another.

Shared and task-specific embeddings: Su et al., AAAI 2024, https://arxiv.org/abs/2308.13537, section 3 (STEM-Net).
"""

# B rows, D input width of one copy, E experts, H expert width, T' towers

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, cast

from torch import Tensor, nn

from recmoe.architectures.cgc import SHARED, OwnAndSharedConfig, expert_names, experts_by_task, own_and_shared
from recmoe.architectures.seam import LevelFlow, Parts, copy_group
from recmoe.architectures.towers import with_towers
from recmoe.moe.executors import dispatched
from recmoe.moe.executors.loop import mix
from recmoe.moe.experts import ExpertStack
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput
from recmoe.moe.mixture import MakeLayer
from recmoe.tasks.funnel import TaskSet


class STEMConfig(OwnAndSharedConfig):
    """A vector per task and a shared one for every id; experts of each, which all gates see."""

    kind: Literal["stem"] = "stem"

    def copies(self, tasks: TaskSet) -> tuple[str, ...]:
        """The shared vector, and one per task with a tower."""
        return (SHARED, *tasks.tower_names)

    def task_problems(self, tasks: TaskSet, groups: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Merged experts: no gradient goes to those of other tasks, which are read by their outputs."""
        yield from super().task_problems(tasks, groups)
        if self.mixes != "outputs":
            yield "mixes", "stem reads the experts of other tasks by their outputs; drop it"

    def assemble(self, parts: Parts) -> nn.Module:
        """The experts with their gates, and a tower on each task's mixture."""
        names = parts.tasks.tower_names
        network = STEM(
            in_features=parts.widths[copy_group(SHARED)],
            num_task_experts=experts_by_task(self.num_task_experts, names),
            num_shared_experts=self.num_shared_experts,
            make_layer=self.layer,
        )
        return with_towers(network, parts)

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow]:
        """Every task moves its own experts and the shared ones."""
        return [LevelFlow(own_and_shared(task_names))]


class STEM(nn.Module):
    """All experts forward, own and shared ones backward, with e_o the vectors of owner o (a task, or shared)::

        y_e = f_e(e_o)                  where o owns expert e
        h_t = Σ_e g_t(e_t)_e · y_e      over all experts; no gradient goes from task t to the experts of another task

    Args:
        in_features: D, of one owner's vectors and all numbers.
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
        self.owners = (*num_task_experts, SHARED)
        names = expert_names(num_task_experts, num_shared_experts)
        owner_of_expert = [name.rpartition(".")[0] for name in names]
        self.layer = make_layer(
            experts={name: self.owners.index(owner) for name, owner in zip(names, owner_of_expert, strict=True)},
            gates={task: self.owners.index(task) for task in num_task_experts},
            mask_GE=[[True] * len(names)] * len(num_task_experts),
            in_features=in_features,
        )
        # Experts of other tasks are read as they are, without a way back: they stand behind all experts once more.
        self.seen = [
            [index if owner in (task, SHARED) else index + len(names) for index, owner in enumerate(owner_of_expert)]
            for task in num_task_experts
        ]
        self.out_features = self.layer.out_features

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:  # noqa: ARG002
        """One h_BH per task; the use of the tasks' gates."""
        inputs = [groups[copy_group(owner)] for owner in self.owners]
        weights, use = self.layer.route(inputs, groups)
        experts = cast(ExpertStack, self.layer.experts)
        if self.layer.is_sparse:
            return dispatched(experts, inputs, weights_BGE=use.weights_BGE, copies=self._read_by_gate), [use]
        outputs = experts(inputs)
        return mix([*outputs, *_detached(outputs)], weights=weights, seen=self.seen), [use]

    def _read_by_gate(self, outputs: Sequence[Tensor]) -> list[list[Tensor]]:
        """What each gate reads of every expert: those of other tasks without a way back."""
        both = [*outputs, *_detached(outputs)]
        return [[both[index] for index in seen] for seen in self.seen]


def _detached(outputs: Sequence[Tensor]) -> list[Tensor]:
    return [y.detach() for y in outputs]
