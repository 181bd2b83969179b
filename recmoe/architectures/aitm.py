"""AITM: what one step of a funnel has learned is handed to the next one, which weighs it against its own.

Adaptive information transfer multi-task: Xi et al., KDD 2021, https://arxiv.org/abs/2105.08489, equations 4-11.
"""

# B rows, D input width, H representation width, U = 2 sources, T' towers, Z logits

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from recmoe.architectures.seam import ArchitectureKind, Inputs, Outputs, Parts, Targets, no_such_tower
from recmoe.architectures.towers import TowerModel
from recmoe.axes import PartNames
from recmoe.moe.experts import MlpExperts
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput
from recmoe.tasks.funnel import TaskSet

CALIBRATOR = "calibrator"


class AITMConfig(ArchitectureKind):
    """A network per task; each step of a chain hands what it learned to the next one."""

    kind: Literal["aitm"] = "aitm"
    chain: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    """Binary tasks over the same rows, each of which implies the one before, such as ctr, ctcvr; all tasks with a
    tower, in their order, by default."""
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128)
    """Width of each layer of a task's network."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of activations dropped in training."""
    calibrator: NonNegativeFloat = 0.6
    """Factor of the loss by which a step must not be more probable than the one before."""

    def steps(self, tasks: TaskSet) -> tuple[str, ...]:
        """The chain."""
        return self.chain or tasks.tower_names

    def assemble(self, parts: Parts) -> nn.Module:
        """The networks, what connects them, and a tower on each."""
        names = parts.tasks.tower_names
        steps = self.steps(parts.tasks)
        transfer = Transfer(
            in_features=parts.in_features, task_names=names, chain=steps, hidden=self.hidden, dropout=self.dropout
        )
        return AITM(
            transfer=transfer,
            towers=parts.make_towers(transfer.out_features),
            task_names=names,
            chain_columns=[parts.tasks.columns(name)[0] for name in steps],
            calibrator=self.calibrator,
        )

    def task_problems(self, tasks: TaskSet, groups: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Steps that are no binary tasks with a tower, or do not live in the same space."""
        yield from super().task_problems(tasks, groups)
        steps = self.steps(tasks)
        for name in steps:
            if name not in tasks.tower_names:
                yield "chain", no_such_tower(name, tasks)
            elif tasks.kinds[name] != "binary":
                yield "chain", f"{name} is no probability; name the binary tasks of the chain"
            elif (space := tasks.spaces[name]) != tasks.spaces.get(steps[0], space):
                yield (
                    "chain",
                    f"{name} lives in {space} and {steps[0]} in {tasks.spaces[steps[0]]}, so their probabilities "
                    "cannot be compared row by row; give the steps the same space",
                )


class Transfer(nn.Module):
    """q_t = mlp_t(x) for every task; along the chain, information is transferred::

        z_1 = q_1,     p_t = g_(t-1)(z_(t-1))          what the step before hands on
        w_u = softmax over u in {p_t, q_t} of ⟨h2(u), h3(u)⟩ / √H
        z_t = Σ_u w_u · h1(u)                          g, h1, h2 and h3 are matrices of the step

    Args:
        in_features: D.
        task_names: one network each.
        chain: the steps, by task.
        hidden: width of each layer of a network; the last is H.
        dropout: share of activations dropped in training.
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
        self.networks = MlpExperts(
            reads=dict.fromkeys(task_names, 0), in_features=in_features, hidden=hidden, dropout=dropout
        )
        self.out_features = width = hidden[-1]
        self.hands_on = nn.ModuleList(nn.Linear(width, width) for _ in chain[1:])
        self.projections = nn.ModuleList(nn.Linear(width, 3 * width) for _ in chain[1:])

    def part_names(self) -> PartNames:
        """What connects two steps belongs to both."""
        links = [f"{before}→{after}" for before, after in pairwise(self.chain)]
        return {"hands_on": links, "projections": links}

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:  # noqa: ARG002
        """One h_BH per task, and how much each step took from the one before."""
        own = dict(zip(self.task_names, self.networks([x]), strict=True))
        uses = []
        links = zip(pairwise(self.chain), self.hands_on, self.projections, strict=True)
        for level, ((before, after), hand_on, project) in enumerate(links):
            sources_BUH = torch.stack([hand_on(own[before]), own[after]], dim=1)
            value_BUH, key_BUH, query_BUH = project(sources_BUH).chunk(3, dim=2)
            scores_BU = (key_BUH.float() * query_BUH.float()).sum(dim=2) / self.out_features**0.5
            weights_BU = torch.softmax(scores_BU, dim=1)
            own[after] = (weights_BU.unsqueeze(2).to(value_BUH.dtype) * value_BUH).sum(dim=1)
            uses.append(
                GateUse(level=level, gates=(after,), experts=(before, after), weights_BGE=weights_BU.unsqueeze(1))
            )
        return [own[name] for name in self.task_names], uses


class AITM(nn.Module):
    """Towers on what is transferred, with a loss of its own, the calibrator; see ``Model``::

        L_calibrator = 1/B · Σ_b Σ_t max(p[b, t] − p[b, t−1], 0)     over the steps of the chain

    Args:
        transfer: x_BD → one h_BH per tower.
        towers: h_BH → logits_BK.
        task_names: of the towers.
        chain_columns: of the steps in logits_BZ.
        calibrator: factor of the loss.
    """

    replaces: frozenset[str] = frozenset()

    def __init__(
        self,
        *,
        transfer: Transfer,
        towers: Sequence[nn.Module],
        task_names: Sequence[str],
        chain_columns: Sequence[int],
        calibrator: float,
    ) -> None:
        super().__init__()
        self.inner = TowerModel(architecture=transfer, towers=towers, task_names=task_names)
        self.chain_columns = list(chain_columns)
        self.loss_weights: Mapping[str, float] = {CALIBRATOR: calibrator} if calibrator > 0 else {}

    def forward(self, inputs: Inputs) -> Outputs:
        """The logits of some rows."""
        outputs: Outputs = self.inner(inputs)
        return outputs

    def begin_at_zero(self) -> None:
        """Make every logit 0; see ``Model``."""
        self.inner.begin_at_zero()

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:  # noqa: ARG002
        """By how much steps are more probable than the ones before."""
        if not self.loss_weights:
            return {}
        p_BT = torch.sigmoid(outputs.logits_BZ[:, self.chain_columns])
        return {CALIBRATOR: torch.relu(p_BT[:, 1:] - p_BT[:, :-1]).sum() / len(p_BT)}
