"""PEPNet: gates of domain and person scale what the tasks read, and every layer of their networks.

Parameter and embedding personalized network: Chang et al., KDD 2023, https://arxiv.org/abs/2302.01115, equations 1-8.
"""

# B rows, D input width, P width of what a gate reads, O width of a layer, H representation width, T' towers

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from recmoe.architectures.seam import ArchitectureKind, Parts
from recmoe.architectures.towers import with_towers
from recmoe.axes import PartNames
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput, linear, rows_of
from recmoe.tasks.funnel import TaskSet

ALL = "all"


class PEPNetConfig(ArchitectureKind):
    """A network per task, whose input is scaled by the domain and whose layers are scaled by the person."""

    kind: Literal["pepnet"] = "pepnet"
    domain: str = ALL
    """Group of features (``model.groups``) by which the input is scaled, such as the page; all features by default."""
    personal: str = ALL
    """Group of features by which the layers are scaled, such as user, item and author; all features by default."""
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128)
    """Width of each layer of a task's network."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of activations dropped in training."""
    gate_hidden: PositiveInt = 64
    """Width of the hidden layer of a gate."""
    gamma: PositiveFloat = 2.0
    """Largest factor of a gate; the middle, half of it, leaves a number as it is."""

    def assemble(self, parts: Parts) -> nn.Module:
        """The networks with their gates, and a tower on each."""
        network = PEPNet(
            in_features=parts.in_features,
            domain=self.domain,
            domain_features=parts.widths[self.domain],
            personal=self.personal,
            personal_features=parts.widths[self.personal],
            task_names=parts.tasks.tower_names,
            hidden=self.hidden,
            dropout=self.dropout,
            gate_hidden=self.gate_hidden,
            gamma=self.gamma,
        )
        return with_towers(network, parts)

    def task_problems(self, tasks: TaskSet, groups: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Groups of features that are not there."""
        yield from super().task_problems(tasks, groups)
        for key, name in (("domain", self.domain), ("personal", self.personal)):
            if name not in (ALL, *groups):
                known = ", ".join(groups) or "none"
                yield key, f"no such group of features: {name} (there are: {known}); name its features in model.groups"


class GateNU(nn.Module):
    """δ = γ · σ(W' · relu(W · [g; sg(x)] + b) + b'): a factor for every number of what it scales.

    No gradient goes from the gate into x.

    Args:
        group_features: width of g.
        in_features: D, width of x.
        hidden: width of the hidden layer.
        out_features: how many numbers are scaled.
        gamma: γ.
    """

    def __init__(self, *, group_features: int, in_features: int, hidden: int, out_features: int, gamma: float) -> None:
        super().__init__()
        # W · [g; x] as a sum of two products: each reads one group of features.
        self.of_group = nn.Linear(group_features, hidden)
        self.of_input = nn.Linear(in_features, hidden, bias=False)
        self.out = nn.Linear(hidden, out_features)
        self.gamma = gamma

    def forward(self, group: Tensor | SidedInput, x_BD: Tensor) -> Tensor:
        """δ_BO."""
        hidden_BO = linear(group, self.of_group.weight, self.of_group.bias) + self.of_input(x_BD.detach())
        return self.gamma * torch.sigmoid(self.out(torch.relu(hidden_BO)))


class PEPNet(nn.Module):
    """The embedding of a row is scaled by its domain, and every layer of a task's network by the person::

        o = δ_domain(x) ⊗ x
        h_t^0 = o,     h_t^(l+1) = relu(W_t^l · (δ_t^l ⊗ h_t^l) + b_t^l),     δ_t^l = gate of [personal; sg(o)]

    Args:
        in_features: D.
        domain, personal: names of the groups that the gates read; ``all`` is x.
        domain_features, personal_features: their widths.
        task_names: one network each.
        hidden: width of each layer; the last is H.
        dropout: share of activations dropped in training.
        gate_hidden, gamma: of the gates.
    """

    def __init__(
        self,
        *,
        in_features: int,
        domain: str,
        domain_features: int,
        personal: str,
        personal_features: int,
        task_names: Sequence[str],
        hidden: Sequence[int],
        gate_hidden: int,
        gamma: float,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.domain, self.personal = domain, personal
        self.dropout = dropout
        self.task_names = tuple(task_names)
        self.out_features = hidden[-1]
        sizes = {"in_features": in_features, "hidden": gate_hidden}
        self.domain_gate = GateNU(group_features=domain_features, out_features=in_features, gamma=gamma, **sizes)
        widths = (in_features, *hidden)
        self.layers = nn.ModuleList(
            nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths)) for _ in task_names
        )
        self.gates = nn.ModuleList(
            nn.ModuleList(
                GateNU(group_features=personal_features, out_features=before, gamma=gamma, **sizes)
                for before in widths[:-1]
            )
            for _ in task_names
        )

    def part_names(self) -> PartNames:
        """Every task has a network and its gates."""
        return {"layers": self.task_names, "gates": self.task_names}

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:
        """One h_BH per task; no gate chooses between experts."""
        read = {ALL: x, **groups}
        x_BD = rows_of(x)
        scaled_BD = self.domain_gate(read[self.domain], x_BD) * x_BD
        personal = read[self.personal]
        h = []
        for layers, gates in zip(self.layers, self.gates, strict=True):
            h_BO = scaled_BD
            for layer, gate in zip(layers, gates, strict=True):  # type: ignore[call-overload]
                h_BO = torch.relu(layer(gate(personal, scaled_BD) * h_BO))
                h_BO = functional.dropout(h_BO, self.dropout, self.training)
            h.append(h_BO)
        return h, []
