"""The seam: what a model of any architecture is made for, what it reads and what it gives."""

# B rows, T tasks, H width of a representation, K logits of a task, Z logits of all tasks with a tower

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol, Self

from torch import Tensor, nn

from recmoe.balancing.fork import Fork
from recmoe.config import Config
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.mixing import NO_MIXTURE, Mixture


class Inputs(NamedTuple):
    """What a model reads."""

    x: Tensor | SidedInput
    """x_BD, all features side by side."""
    groups: Groups = NO_GROUPS
    """Some of them, by the names that ``model.groups`` gives; and the copies and ids that the model asked for."""


class Outputs(NamedTuple):
    """What a model gives."""

    logits_BZ: Tensor
    """Of the towers, before the start of each logit and the linear part are added; ``TaskSet.columns`` knows whose."""
    routing: Sequence[GateUse] = ()
    """How the gates mixed the experts, level by level."""
    extra: Mapping[str, Tensor] = {}
    """What only the model's own losses read."""
    again_BZ: Tensor | None = None
    """Logits of the same rows by other draws, where a model that draws gives both while it trains: tasks learn from
    both alike."""
    below: Callable[[], Sequence[GateUse]] = tuple
    """Gives how a trunk below the model mixed experts of its own, on levels below 0; looked at, and not balanced."""
    mixture: Mixture = NO_MIXTURE
    """What ``logits_BZ`` are joined of, where experts predict each by themselves. The start and the linear part are
    added to what each predicts: then they are joined anew, and tasks learn from each."""


class Targets(NamedTuple):
    """What a batch teaches each task."""

    labels_BT: Tensor
    weights_BT: Tensor
    """1 where a row counts for a task: it is in the task's space, and its label is known."""
    losses_BT: Tensor | None = None
    """What each task lost in a row, in ``units_T`` and without a gradient; 0 where the row does not count. None where
    nothing was predicted yet."""
    units_T: Tensor | None = None
    """What the loss of each task is measured in, so that losses of tasks can be added; None where that is 1."""
    groups_B: Tensor | None = None
    """The list of each row, for tasks that compare the rows of a list."""


class Model(Protocol):
    """A module from inputs to logits."""

    replaces: frozenset[str]
    """Tasks whose own loss the losses of the model stand for."""
    loss_weights: Mapping[str, float]
    """By name of an own loss: its factor in the loss that is minimised."""

    def __call__(self, inputs: Inputs) -> Outputs:
        """The logits of some rows."""
        ...

    def begin_at_zero(self) -> None:
        """Make every logit 0, whatever the row: what a model knows before it has learned anything."""
        ...

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:
        """Own losses by name, scalars, each a sum over rows divided by B.

        Args:
            outputs: of the model, with the logits as the tasks read them.
        """
        ...


class Forkable(Protocol):
    """A model, or an architecture x → h, of a kind that ``can_fork``."""

    def fork_shared(self, fork: Fork) -> None:
        """Let the tasks read copies of what they share, by a fork for as many tasks as there are towers."""
        ...


@dataclass(frozen=True)
class Parts:
    """What a model is made for and of."""

    widths: Mapping[str, int]
    """Width of each group of features; ``all`` is D."""
    tasks: TaskSet
    make_tower: Callable[[int, str], nn.Module]
    """From the width H of a representation and a task to its tower, h_BH → logits_BK."""
    num_ids: Mapping[str, int] = field(default_factory=dict)
    """Of each feature whose ids the model reads: rows of its table, the unknown one included."""

    @property
    def in_features(self) -> int:
        """D."""
        return self.widths["all"]

    def make_towers(self, width: int) -> list[nn.Module]:
        """A tower for every task that has one, in order, on representations of width H."""
        return [self.make_tower(width, name) for name in self.tasks.tower_names]


def copy_group(name: str) -> str:
    """The group of features that holds one of several vectors of every id, and all numbers."""
    return f"copy of {name}"


@dataclass(frozen=True)
class LevelFlow:
    """What moves the experts of one level, and who reads them, by their owners: ``ctr`` of the expert ``ctr.0``.

    Example: of two tasks, with a shared gate that sees all experts and leads to another level::

        owners_by_task         ctr: {ctr, cvr, shared}    cvr: {ctr, cvr, shared}
        owners_by_gate_above   ctr: {ctr, shared}         cvr: {cvr, shared}
    """

    owners_by_task: Mapping[str, Collection[str]]
    """By task: owners of the experts that its loss moves."""
    owners_by_gate_above: Mapping[str, Collection[str]] = field(default_factory=dict)
    """By gate of the next level: owners of the experts whose outputs it reads."""


class ArchitectureKind(Config):
    """What every kind of architecture says of itself; most kinds leave it at that."""

    can_fork: ClassVar[bool] = False
    """Whether the model is ``Forkable``: it finds what its tasks share."""

    @abstractmethod
    def assemble(self, parts: Parts) -> nn.Module:
        """The ``Model``, with weights drawn from torch's global generator."""

    def task_problems(self, tasks: TaskSet, groups: Sequence[str]) -> Iterator[tuple[str, str]]:  # noqa: ARG002
        """What does not fit the tasks or the groups of features, as (key below the section, message)."""
        return iter(())

    def copies(self, tasks: TaskSet) -> tuple[str, ...]:  # noqa: ARG002
        """Names of the vectors that the model keeps for every id, where it keeps several; see ``copy_group``."""
        return ()

    def keeping(self, counts: Mapping[str, int]) -> Self | None:  # noqa: ARG002
        """The same with other numbers of experts, where the kind knows how to say that; else None.

        Args:
            counts: experts of a layer by owner, as in the names of experts: tasks, and ``shared``.
        """
        return None

    def id_features(self) -> Mapping[str, str]:
        """Features whose ids the model reads, not only their vectors, by the key below the section that names them."""
        return {}

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow] | None:  # noqa: ARG002
        """What moves the experts, level by level, as it should be; None where the kind does not say.

        Args:
            task_names: of the tasks with a tower, in order.
        """
        return None


def no_such_tower(name: str, tasks: TaskSet) -> str:
    """What is wrong with a config that names a task where only those with a tower can stand."""
    return f"no such task with a tower: {name} (there are {', '.join(tasks.tower_names)})"
