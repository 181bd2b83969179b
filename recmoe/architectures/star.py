"""STAR: one network for all domains, whose weights each domain multiplies with its own.

Star topology adaptive recommender: Sheng et al., CIKM 2021, https://arxiv.org/abs/2101.11427, equations 1-6.
"""

# B rows, D input width, P domains, A width of the auxiliary network, H representation width, Z logits

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from recmoe.architectures.domains import DomainKind, Domains, PartitionedNorm, StarLinear
from recmoe.architectures.seam import Inputs, Outputs, Parts, Targets
from recmoe.architectures.towers import TowerModel
from recmoe.axes import WeightAxes
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput, linear, rows_of


class STARConfig(DomainKind):
    """A network for all tasks, whose weights each domain multiplies with its own."""

    kind: Literal["star"] = "star"
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (256, 128)
    """Width of each layer of the network."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of activations dropped in training."""
    auxiliary_hidden: PositiveInt = 32
    """Width of the hidden layer of the auxiliary network, which reads the domain and adds to the logits."""

    def assemble(self, parts: Parts) -> nn.Module:
        """The network with a tower per task, and the auxiliary network."""
        names = parts.tasks.tower_names
        domains = self.domains(parts)
        network = StarNetwork(
            in_features=parts.in_features,
            num_tasks=len(names),
            domains=domains,
            hidden=self.hidden,
            dropout=self.dropout,
        )
        auxiliary = Auxiliary(
            in_features=parts.in_features,
            hidden=self.auxiliary_hidden,
            logits=parts.tasks.logit_names,
            domains=domains,
        )
        towers = parts.make_towers(network.out_features)
        return STAR(network=network, auxiliary=auxiliary, towers=towers, task_names=names)


class StarNetwork(nn.Module):
    """h = star_L(… star_1(norm(x))), with relu after each layer, the same h for every task.

    The paper has one task. Here all read one network, and a tower each.

    Args:
        in_features: D.
        num_tasks: how many tasks read the representation.
        domains: of the rows.
        hidden: width of each layer; the last is H.
        dropout: share of activations dropped in training.
    """

    def __init__(
        self, *, in_features: int, num_tasks: int, domains: Domains, hidden: Sequence[int], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.domains = domains
        self.dropout = dropout
        self.norm = PartitionedNorm(num_features=in_features, domains=domains)
        self.layers = nn.Sequential(
            *(
                StarLinear(in_features=before, out_features=after, domains=domains)
                for before, after in pairwise((in_features, *hidden))
            )
        )
        self.out_features = hidden[-1]

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:
        """The same h_BH for every task; there are no gates."""
        x_BD = rows_of(x)
        rows = self.domains.of(groups, len(x_BD), x_BD.device)
        h_BH = self.norm(x_BD, rows)
        for layer in self.layers:
            h_BH = torch.relu(layer(h_BH, rows))
            h_BH = functional.dropout(h_BH, self.dropout, self.training)
        return [h_BH] * self.num_tasks, []


class Auxiliary(nn.Module):
    """a = U · relu(W · x + e_p + b) + c: what the domain itself says of every logit; e_p is 0 for a row of no domain.

    Args:
        in_features: D.
        hidden: A.
        logits: names of the Z logits.
        domains: each has an e.
    """

    def __init__(self, *, in_features: int, hidden: int, logits: Sequence[str], domains: Domains) -> None:
        super().__init__()
        self.domains = domains
        self.logits = tuple(logits)
        self.of_input = nn.Linear(in_features, hidden)
        self.of_domain_PA = nn.Parameter(0.1 * torch.randn(domains.num, hidden)) if domains.num else None
        self.out = nn.Linear(hidden, len(logits))

    def weight_axes(self) -> WeightAxes:
        """Domains, and logits."""
        return {
            "of_domain_PA": (self.domains.labels, None),
            "out.weight": (self.logits, None),
            "out.bias": (self.logits,),
        }

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> Tensor:
        """a_BZ."""
        a_BA = linear(x, self.of_input.weight, self.of_input.bias)
        if self.of_domain_PA is not None:
            rows = self.domains.of(groups, len(a_BA), a_BA.device)
            a_BA = a_BA + functional.pad(self.of_domain_PA, (0, 0, 1, 0))[rows.domain_B]
        a_BZ: Tensor = self.out(torch.relu(a_BA))
        return a_BZ


class STAR(nn.Module):
    """logits = tower_t(h) + a; see ``Model``. In the paper both are one number, of one task.

    Args:
        network: x_BD → one h_BH per tower.
        auxiliary: x_BD → a_BZ.
        towers: h_BH → logits_BK.
        task_names: of the towers.
    """

    replaces: frozenset[str] = frozenset()
    loss_weights: Mapping[str, float] = {}

    def __init__(
        self, *, network: StarNetwork, auxiliary: Auxiliary, towers: Sequence[nn.Module], task_names: Sequence[str]
    ) -> None:
        super().__init__()
        self.inner = TowerModel(architecture=network, towers=towers, task_names=task_names)
        self.auxiliary = auxiliary

    def forward(self, inputs: Inputs) -> Outputs:
        """The logits of some rows."""
        outputs: Outputs = self.inner(inputs)
        return outputs._replace(logits_BZ=outputs.logits_BZ + self.auxiliary(inputs.x, inputs.groups))

    def begin_at_zero(self) -> None:
        """Make every logit 0; see ``Model``."""
        self.inner.begin_at_zero()
        nn.init.zeros_(self.auxiliary.out.weight)
        nn.init.zeros_(self.auxiliary.out.bias)

    def losses(self, outputs: Outputs, targets: Targets) -> dict[str, Tensor]:  # noqa: ARG002
        """None of its own."""
        return {}
