"""ResFlow: what a step of a funnel makes of a row, layer by layer and in its logit, is added to the next step's own.

Residual multi-task learner: Fu et al., KDD 2025, https://arxiv.org/abs/2411.09705, residual connections between
corresponding layers of the networks of two tasks. Where this reading chooses: what is added comes after the activation,
so that a layer of the next step reads the sum; and the logits of a link are added too, where both are log-odds.
"""

# B rows, D input width, O width of a layer, H representation width, T' towers, Z logits

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from recmoe.architectures.seam import ArchitectureKind, Inputs, LevelFlow, Outputs, Parts, Targets, no_such_tower
from recmoe.architectures.towers import TowerModel
from recmoe.axes import Labels, PartNames, WeightAxes
from recmoe.moe.experts import MlpExperts
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput
from recmoe.tasks.funnel import TaskSet


class ResFlowConfig(ArchitectureKind):
    """A network per task; along a chain, every layer and the logit of a step are added to those of the next one."""

    kind: Literal["resflow"] = "resflow"
    chain: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    """Tasks that follow each other, such as click, cart, order; all tasks with a tower, in their order, by default."""
    logits: bool = True
    """Whether the logit of a step is added too, for which all steps must be binary tasks."""
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128)
    """Width of each layer of a task's network."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of activations dropped in training."""

    def assemble(self, parts: Parts) -> nn.Module:
        """The networks with their links, and a tower on each."""
        names = parts.tasks.tower_names
        steps = self.chain or names
        networks = ResidualNetworks(
            in_features=parts.in_features, task_names=names, chain=steps, hidden=self.hidden, dropout=self.dropout
        )
        return ResFlow(
            networks=networks,
            towers=parts.make_towers(networks.out_features),
            task_names=names,
            chain_columns=[parts.tasks.columns(name)[0] for name in steps] if self.logits else [],
        )

    def task_problems(self, tasks: TaskSet, groups: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Steps that are no tasks with a tower, are named twice, or have no log-odds that could be added."""
        yield from super().task_problems(tasks, groups)
        steps = self.chain or tasks.tower_names
        for name in dict.fromkeys(steps):
            if name not in tasks.tower_names:
                yield "chain", no_such_tower(name, tasks)
            elif steps.count(name) > 1:
                yield "chain", f"{name} is given twice; a chain has no way back"
            elif self.logits and tasks.kinds[name] != "binary":
                yield (
                    "chain",
                    f"{name} is no probability, so its logit cannot be added; name the binary tasks of the chain, or "
                    "set model.architecture.logits to false",
                )

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow]:
        """A step moves its own network and those of the steps before it, at every layer."""
        steps = tuple(self.chain or task_names)
        moved = {name: {name} for name in task_names}
        moved |= {name: set(steps[: place + 1]) for place, name in enumerate(steps)}
        return [LevelFlow(moved)] * len(self.hidden)


class ResidualNetworks(nn.Module):
    """x_t^(l+1) = relu(W_t^l · x_t^l + b_t^l) + x_s^(l+1), where s is the step before t; without one, the first term.

    All read x^0 = x. A task outside of the chain has a network of its own.

    Args:
        in_features: D.
        task_names: one network each, in this order.
        chain: the steps, by task.
        hidden: width of each layer; the last is H.
        dropout: share of activations dropped in training, before the sum.
    """

    def __init__(
        self,
        *,
        in_features: int,
        task_names: Sequence[str],
        chain: Sequence[str],
        hidden: Sequence[int],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.task_names = tuple(task_names)
        self.chain = tuple(chain)
        self.layers = nn.ModuleList(
            MlpExperts(
                reads={name: 0 if level == 0 else task for task, name in enumerate(task_names)},
                in_features=before,
                hidden=(after,),
                dropout=dropout,
            )
            for level, (before, after) in enumerate(pairwise((in_features, *hidden)))
        )
        self.out_features = hidden[-1]

    def weight_axes(self) -> WeightAxes:
        """A network adds to those of the steps before it: after other steps it is another one."""
        places = {name: self.chain[: place + 1] for place, name in enumerate(self.chain)}
        networks: Labels = tuple(places.get(name, (name,)) for name in self.task_names)
        layers = range(len(self.layers))
        return {
            **{f"layers.{layer}.weights_EOD.0": (networks, None, None) for layer in layers},
            **{f"layers.{layer}.biases_EO.0": (networks, None) for layer in layers},
        }

    def part_names(self) -> PartNames:
        """Layers are what they are by their position."""
        return {"layers": [str(level) for level in range(len(self.layers))]}

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:  # noqa: ARG002
        """One h_BH per task; no gate chooses between experts."""
        streams: list[Tensor | SidedInput] = [x]
        for layer in self.layers:
            h = dict(zip(self.task_names, layer(streams), strict=True))
            for before, after in pairwise(self.chain):
                h[after] = h[after] + h[before]
            streams = [*h.values()]
        return list(h.values()), []


class ResFlow(nn.Module):
    """Towers on linked networks, whose logits are linked as well; see ``Model``::

        logit_t = tower_t(h_t) + logit_s     where s is the step before t

    Args:
        networks: x_BD → one h_BH per tower.
        towers: h_BH → logits_BK.
        task_names: of the towers.
        chain_columns: of the steps in logits_BZ; without any, logits are those of the towers.
    """

    replaces: frozenset[str] = frozenset()
    loss_weights: Mapping[str, float] = {}

    def __init__(
        self,
        *,
        networks: ResidualNetworks,
        towers: Sequence[nn.Module],
        task_names: Sequence[str],
        chain_columns: Sequence[int],
    ) -> None:
        super().__init__()
        self.inner = TowerModel(architecture=networks, towers=towers, task_names=task_names)
        self.chain_columns = list(chain_columns)

    def forward(self, inputs: Inputs) -> Outputs:
        """The logits of some rows."""
        outputs: Outputs = self.inner(inputs)
        columns = list(outputs.logits_BZ.unbind(dim=1))
        for before, after in pairwise(self.chain_columns):
            columns[after] = columns[after] + columns[before]
        return outputs._replace(logits_BZ=torch.stack(columns, dim=1))

    def begin_at_zero(self) -> None:
        """Make every logit 0; see ``Model``."""
        self.inner.begin_at_zero()

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:  # noqa: ARG002
        """None of its own."""
        return {}
