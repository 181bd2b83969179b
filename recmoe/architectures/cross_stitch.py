"""Cross-stitch networks: a network per task, and after every layer each task reads a learned sum of all of them.

Misra et al., CVPR 2016, https://arxiv.org/abs/1604.03539, equation 1.
"""

# B rows, D input width, T tasks, O width of a layer, H representation width

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from recmoe.architectures.seam import LevelFlow
from recmoe.architectures.towers import TowerKind
from recmoe.axes import PartNames, WeightAxes
from recmoe.balancing.fork import Fork
from recmoe.moe.experts import Form, MlpExperts
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput


class CrossStitchConfig(TowerKind):
    """A network per task; after every layer each task reads a learned sum of all of them."""

    can_fork: ClassVar[bool] = True
    kind: Literal["cross_stitch"] = "cross_stitch"
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128)
    """Width of each layer of a task's network; a unit follows every layer."""
    own: Annotated[float, Field(ge=0, le=1)] = 0.9
    """What a task begins with of its own network; the others have even shares of the rest."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of activations dropped in training."""

    def build(self, *, in_features: int, task_names: Sequence[str]) -> "CrossStitch":
        """The networks and their units, with weights drawn from torch's global generator."""
        return CrossStitch(
            in_features=in_features, task_names=task_names, hidden=self.hidden, own=self.own, dropout=self.dropout
        )

    def flow(self, task_names: Sequence[str]) -> Sequence[LevelFlow] | None:
        """Every task reads all networks, but where a factor begins at 0; then it depends on the others."""
        if self.own in (0, 1):
            return None
        return [LevelFlow(dict.fromkeys(task_names, tuple(task_names)))] * len(self.hidden)


class Stitch(nn.Module):
    """A cross-stitch unit: x̃_t = Σ_s α[t, s] · x_s.

    The paper leaves open whether each channel has an α of its own; here one holds for the whole layer.

    Args:
        task_names: of the networks.
        own: α[t, t] at the start; the others begin with even shares of the rest. One task has α = 1.
    """

    def __init__(self, *, task_names: Sequence[str], own: float) -> None:
        super().__init__()
        self.task_names = tuple(task_names)
        num_others = len(task_names) - 1
        other, own = ((1.0 - own) / num_others, own) if num_others else (0.0, 1.0)
        eye_TT = torch.eye(num_others + 1)
        self.alpha_TT = nn.Parameter(own * eye_TT + other * (1.0 - eye_TT))

    def weight_axes(self) -> WeightAxes:
        """What a task reads, and of which one."""
        return {"alpha_TT": (self.task_names, self.task_names)}

    def forward(self, read: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """One x̃_BO per task.

        Args:
            read: by task, the x_BO of all tasks that it reads.
        """
        return [
            sum((alpha * x_BO for alpha, x_BO in zip(alpha_T[1:], own[1:], strict=True)), start=alpha_T[0] * own[0])
            for alpha_T, own in zip(self.alpha_TT.to(read[0][0].dtype).unbind(), read, strict=True)
        ]


class CrossStitch(nn.Module):
    """h_t = x̃_t of the last layer, x_t^(l+1) = relu(W_t^l · x̃_t^l + b_t^l), with x̃^0 = x for every task.

    Args:
        in_features: D.
        task_names: one network each, in this order.
        hidden: width of each layer; the last is H.
        own: see ``Stitch``.
        dropout: share of activations dropped in training.
        form: how the networks are computed; see ``MlpExperts``.
    """

    def __init__(
        self,
        *,
        in_features: int,
        task_names: Sequence[str],
        hidden: Sequence[int],
        own: float,
        dropout: float = 0.0,
        form: Form = "auto",
    ) -> None:
        super().__init__()
        self.num_tasks = len(task_names)
        self.fork: Fork | None = None
        self.layers = nn.ModuleList(
            MlpExperts(
                reads={name: 0 if level == 0 else task for task, name in enumerate(task_names)},
                in_features=before,
                hidden=(after,),
                dropout=dropout,
                form=form,
            )
            for level, (before, after) in enumerate(pairwise((in_features, *hidden)))
        )
        self.stitches = nn.ModuleList(Stitch(task_names=task_names, own=own) for _ in hidden)
        self.out_features = hidden[-1]

    def part_names(self) -> PartNames:
        """Layers are what they are by their position."""
        levels = [str(level) for level in range(len(self.layers))]
        return {"layers": levels, "stitches": levels}

    def fork_shared(self, fork: Fork) -> None:
        """Let the last unit read copies of all networks for every task."""
        self.fork = fork

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:  # noqa: ARG002
        """One h_BH per task; no gate chooses between experts."""
        last = len(self.layers) - 1
        streams: list[Tensor | SidedInput] = [x]
        for level, (layer, stitch) in enumerate(zip(self.layers, self.stitches, strict=True)):
            outputs: list[Tensor] = layer(streams)
            fork = self.fork if level == last else None
            h: list[Tensor] = stitch([outputs] * self.num_tasks if fork is None else fork(outputs))
            streams = [*h]
        return h, []
