"""M3oE: experts for all, for each domain and for each task, mixed for every pair of domain and task.

Multi-domain multi-task mixture of experts: Zhang et al., SIGIR 2024, https://arxiv.org/abs/2404.18465. The paper learns
the four numbers of the fusion on a validation split, by AutoML; here they are learned with all other weights. A tower
belongs to a task, and its domain reaches it through what it reads; in the paper every pair has one.
"""

# B rows, D input width, M width of a row's representation, P domains, T tasks, K shared experts, H expert width

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal, cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from recmoe.architectures.domains import DomainKind, DomainRows, Domains, StarLinear
from recmoe.architectures.seam import Parts
from recmoe.architectures.towers import with_towers
from recmoe.axes import WeightAxes
from recmoe.moe.executors.loop import mix
from recmoe.moe.experts import ExpertStack, MlpExperts
from recmoe.moe.experts.stack import outputs_of_first_rows
from recmoe.moe.gate_use import GateUse
from recmoe.moe.linear import NO_GROUPS, Groups, SidedInput, rows_of

FUSION = ("domain_share", "domain_own", "task_share", "task_own")


class M3oEConfig(DomainKind):
    """Experts for all, for each domain and for each task, and a gate for every pair of domain and task."""

    kind: Literal["m3oe"] = "m3oe"
    max_domains: PositiveInt = 8
    """Domains with an expert of their own, the most frequent ids; every row computes all of them."""
    num_shared_experts: PositiveInt = 4
    """Experts that the gates choose from."""
    star_hidden: PositiveInt = 256
    """Width of the layer whose weights each domain multiplies with its own."""
    representation: PositiveInt = 128
    """Width of what the experts read."""
    expert_hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (128, 128)
    """Width of each layer of an expert."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an expert's activations dropped in training."""

    def assemble(self, parts: Parts) -> nn.Module:
        """The experts, and a tower on each task's mixture."""
        network = M3oE(
            in_features=parts.in_features,
            task_names=parts.tasks.tower_names,
            domains=self.domains(parts),
            num_shared_experts=self.num_shared_experts,
            star_hidden=self.star_hidden,
            representation=self.representation,
            expert_hidden=self.expert_hidden,
            dropout=self.dropout,
        )
        return with_towers(network, parts)


class M3oE(nn.Module):
    """For a row of domain d, with S the shared experts, D_j those of the domains and T_j those of the tasks::

        e   = relu(norm(A · star_d(x))) + relu(norm(C · x))
        a_d = α · D_d(e) + (1 − α) · mean of D_j(e) over the other domains
        b_t = β · T_t(e) + (1 − β) · mean of T_j(e) over the other tasks
        h_t = Σ_k softmax(G_dt · e)_k · S_k(e)  +  u · a_d  +  v · b_t

    α, β, u and v are sigmoids of learned numbers that begin at 1. While it trains, no gradient goes from a gate into e.
    A row of no domain has the shared weights of star and of the gate, and the mean of all D_j.

    Args:
        in_features: D.
        task_names: one expert each.
        domains: one expert each.
        num_shared_experts: K.
        star_hidden: width of star.
        representation: M.
        expert_hidden: width of each layer of an expert; the last is H.
        dropout: share of an expert's activations dropped in training.
    """

    def __init__(
        self,
        *,
        in_features: int,
        task_names: Sequence[str],
        domains: Domains,
        num_shared_experts: int,
        star_hidden: int,
        representation: int,
        expert_hidden: Sequence[int],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.domains = domains
        self.task_names = tuple(task_names)
        self.star = StarLinear(in_features=in_features, out_features=star_hidden, domains=domains)
        self.after_star = nn.Sequential(nn.Linear(star_hidden, representation), nn.LayerNorm(representation), nn.ReLU())
        self.skip = nn.Sequential(nn.Linear(in_features, representation), nn.LayerNorm(representation), nn.ReLU())
        self.shared_names = tuple(f"shared.{expert}" for expert in range(num_shared_experts))
        owners = [f"domain.{row}" for row in range(domains.num)], [f"{task}.0" for task in task_names]
        self.shared, self.of_domains, self.of_tasks = (
            MlpExperts(reads=dict.fromkeys(names, 0), in_features=representation, hidden=expert_hidden, dropout=dropout)
            if names
            else None
            for names in (self.shared_names, *owners)
        )
        num_weights = len(task_names) * num_shared_experts
        self.gate = StarLinear(in_features=representation, out_features=num_weights, domains=domains)
        # The numbers of the fusion that decide nothing are left out: a weight without a gradient stops other workers.
        is_there = (domains.num > 0, domains.num > 1, True, len(task_names) > 1)
        self.fusion = nn.ParameterDict(
            {name: nn.Parameter(torch.ones(())) for name, is_used in zip(FUSION, is_there, strict=True) if is_used}
        )
        self.out_features = expert_hidden[-1]

    def weight_axes(self) -> WeightAxes:
        """Experts of domains go with their ids, gates with tasks and experts."""
        places = tuple((task, expert) for task in self.task_names for expert in self.shared_names)
        layers = range(0 if self.of_domains is None else len(self.of_domains.weights_EOD))
        return {
            **{f"of_domains.weights_EOD.{layer}": (self.domains.labels, None, None) for layer in layers},
            **{f"of_domains.biases_EO.{layer}": (self.domains.labels, None) for layer in layers},
            "gate.shared.weight": (places, None),
            "gate.shared.bias": (places,),
            "gate.own_POD": (self.domains.labels, places, None),
            "gate.own_PO": (self.domains.labels, places),
            **{f"fusion.{name}": () for name in FUSION},
        }

    def forward(self, x: Tensor | SidedInput, groups: Groups = NO_GROUPS) -> tuple[list[Tensor], list[GateUse]]:
        """One h_BH per task; the use of the tasks' gates, which is that of their domains."""
        x_BD = rows_of(x)
        rows = self.domains.of(groups, len(x_BD), x_BD.device)
        e_BM = self.after_star(self.star(x_BD, rows)) + self.skip(x_BD)
        # Without training there is no e to learn, and what moves a gate can be asked for.
        gates_BTK = self._gates(e_BM.detach() if self.training else e_BM, rows)
        outputs = [
            y_BH for experts in (self.shared, self.of_domains, self.of_tasks) if experts for y_BH in experts([e_BM])
        ]
        around_BV = self._around(rows, gates_BTK.dtype)
        weights = []
        for task, p_BK in enumerate(gates_BTK.unbind(1)):
            of_tasks_T = self._share("task_share") * self._own_and_others("task_own", len(self.task_names), task)
            weights.append(torch.cat([p_BK, around_BV, of_tasks_T.expand(len(p_BK), -1)], dim=1))
        h = mix(outputs, weights=weights, seen=[range(len(outputs))] * len(weights))
        use = GateUse(
            level=0,
            gates=self.task_names,
            experts=self.shared_names,
            weights_BGE=gates_BTK,
            outputs=partial(outputs_of_first_rows, cast(ExpertStack, self.shared), [e_BM]),
        )
        return h, [use]

    def _gates(self, e_BM: Tensor, rows: DomainRows) -> Tensor:
        """p_BTK in float32 or wider."""
        with torch.autocast(e_BM.device.type, enabled=False):
            logits_BV: Tensor = self.gate(e_BM.to(self.gate.shared.weight.dtype), rows)
            return torch.softmax(logits_BV.view(len(e_BM), len(self.task_names), -1), dim=2)

    def _around(self, rows: DomainRows, dtype: torch.dtype) -> Tensor:
        """What each row takes of the experts of all domains, [B, P]."""
        num = self.domains.num
        if not num:
            return torch.zeros(len(rows.domain_B), 0, dtype=dtype, device=rows.domain_B.device)
        of_none_P = torch.full((num,), 1 / num, dtype=dtype, device=rows.domain_B.device)
        by_domain = [of_none_P, *(self._own_and_others("domain_own", num, domain) for domain in range(num))]
        return self._share("domain_share") * torch.stack(by_domain)[rows.domain_B]

    def _share(self, name: str) -> Tensor:
        number: Tensor = self.fusion[name]
        return torch.sigmoid(number)

    def _own_and_others(self, name: str, num: int, own: int) -> Tensor:
        """α for the own one, (1 − α) / (N − 1) for each of the others; 1 where there are no others."""
        if name not in self.fusion:
            ones_N: Tensor = self.fusion["task_share"].new_ones(num)
            return ones_N
        share = self._share(name)
        other = (1 - share) / (num - 1)
        return torch.stack([share if index == own else other for index in range(num)])
