"""DBMTL: tasks as the nodes of a Bayesian network, whose links are layers: a task reads what its parents found.

Deep Bayesian multi-target learning: Wang et al. 2019, https://arxiv.org/abs/1902.09154. The joint probability of the
targets is the product over tasks of P(task | its parents, x). The paper chooses the links by model selection; here the
config declares them. What passes a link is the hidden vector of the parent, not its label, which serving does not have.
"""

# B rows, D input width, H representation width

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from itertools import chain, pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from recmoe.architectures.seam import LevelFlow, no_such_tower
from recmoe.architectures.towers import TowerKind
from recmoe.axes import PartNames
from recmoe.moe.experts import MlpExperts
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput
from recmoe.tasks.funnel import TaskSet

Parents = Mapping[str, Sequence[str]]
"""By task: the tasks that it reads."""
Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]


class DBMTLConfig(TowerKind):
    """One network for all tasks, one for each, and links between tasks that say which reads which."""

    kind: Literal["dbmtl"] = "dbmtl"
    relations: dict[str, tuple[str, ...]] | None = None
    """By task, the tasks that it depends on, such as ``{buy: [click], stay: [click, buy]}``; others depend on none. By
    default each depends on all that stand before it, which assumes nothing."""
    shared_hidden: Widths = (256,)
    """Width of each layer of the network of all tasks."""
    hidden: Widths = (128,)
    """Width of each layer of a task's network."""
    relation_hidden: Widths = (64,)
    """Width of each layer that reads a task's network and its parents; the last is that of the representation."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of activations dropped in training."""

    def parents(self, task_names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The links, for every task."""
        if self.relations is None:
            return {name: tuple(task_names[:place]) for place, name in enumerate(task_names)}
        return {name: self.relations.get(name, ()) for name in task_names}

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "DBMTL":
        """The networks, with weights drawn from torch's global generator."""
        return DBMTL(
            in_features=in_features,
            parents=self.parents(task_names),
            shared_hidden=self.shared_hidden,
            hidden=self.hidden,
            relation_hidden=self.relation_hidden,
            dropout=self.dropout,
        )

    def task_problems(self, tasks: TaskSet, groups: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Links between what are no tasks with a tower, that are given twice, or that lead back."""
        yield from super().task_problems(tasks, groups)
        relations = self.relations or {}
        for name in dict.fromkeys([*relations, *chain.from_iterable(relations.values())]):
            if name not in tasks.tower_names:
                yield "relations", no_such_tower(name, tasks)
        for name, parents in relations.items():
            for parent in dict.fromkeys(parents):
                if parents.count(parent) > 1:
                    yield "relations", f"{name} names {parent} twice; drop one"
        try:
            TopologicalSorter(relations).prepare()
        except CycleError as error:
            circle = " → ".join(error.args[1])
            yield "relations", f"tasks depend on each other in a circle: {circle}; drop one of these links"

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow]:
        """All move the shared network; a task moves its own and those of all that it depends on, near or far."""
        parents = self.parents(task_names)
        moved: dict[str, set[str]] = {}
        for name in in_order(parents):
            moved[name] = {name}.union(*(moved[parent] for parent in parents[name]))
        return [LevelFlow(dict.fromkeys(task_names, ("shared",))), LevelFlow(moved)]


def in_order(parents: Parents) -> list[str]:
    """The tasks, each after those that it reads."""
    return list(TopologicalSorter(parents).static_order())


class Relation(nn.Module):
    """h = relu(W · q + Σ_p W_p · h_p + b), then further layers: what a task makes of its network and of its parents.

    It is a layer of all these side by side, written as a sum, so that every link has weights of its own.

    Args:
        in_features: width of q.
        task: whose it is.
        parents: the tasks that it reads.
        hidden: width of each layer.
        dropout: share of activations dropped in training.
    """

    def __init__(
        self, *, in_features: int, task: str, parents: Sequence[str], hidden: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.link_names = tuple(f"{parent}→{task}" for parent in parents)
        self.dropout = dropout
        self.own = nn.Linear(in_features, hidden[0])
        self.links = nn.ModuleList(nn.Linear(hidden[-1], hidden[0], bias=False) for _ in parents)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(hidden))

    def part_names(self) -> PartNames:
        """A link belongs to both of its tasks."""
        return {"links": self.link_names, "layers": [str(layer) for layer in range(len(self.layers))]}

    def forward(self, q_BH: Tensor, parents: Sequence[Tensor]) -> Tensor:
        """h_BH.

        Args:
            parents: h_BH of each.
        """
        h_BH = self.own(q_BH)
        for link, parent_BH in zip(self.links, parents, strict=True):
            h_BH = h_BH + link(parent_BH)
        h_BH = self._activate(h_BH)
        for layer in self.layers:
            h_BH = self._activate(layer(h_BH))
        return h_BH

    def _activate(self, h_BH: Tensor) -> Tensor:
        return functional.dropout(torch.relu(h_BH), self.dropout, self.training)


class DBMTL(nn.Module):
    """h_t = relation_t(q_t, h_p of every parent p),   q_t = mlp_t(mlp(x)).

    Args:
        in_features: D.
        parents: by task, in the order of the tasks: those that it reads.
        shared_hidden, hidden, relation_hidden: width of each layer of the shared network, of a task's, of a relation.
        dropout: share of activations dropped in training.
    """

    def __init__(
        self,
        *,
        in_features: int,
        parents: Parents,
        shared_hidden: Sequence[int],
        hidden: Sequence[int],
        relation_hidden: Sequence[int],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.parents = {name: tuple(read) for name, read in parents.items()}
        self.order = in_order(self.parents)
        self.shared = MlpExperts(reads={"shared.0": 0}, in_features=in_features, hidden=shared_hidden, dropout=dropout)
        self.own = MlpExperts(
            reads=dict.fromkeys(parents, 0), in_features=shared_hidden[-1], hidden=hidden, dropout=dropout
        )
        self.relations = nn.ModuleList(
            Relation(in_features=hidden[-1], task=name, parents=read, hidden=relation_hidden, dropout=dropout)
            for name, read in parents.items()
        )
        self.out_features = relation_hidden[-1]

    def part_names(self) -> PartNames:
        """Every task has a relation."""
        return {"relations": tuple(self.parents)}

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:  # noqa: ARG002
        """One h_BH per task; no gate chooses between experts."""
        q = dict(zip(self.parents, self.own(self.shared([x])), strict=True))
        relations = dict(zip(self.parents, self.relations, strict=True))
        h: dict[str, Tensor] = {}
        for name in self.order:
            h[name] = relations[name](q[name], [h[parent] for parent in self.parents[name]])
        return [h[name] for name in self.parents], []
