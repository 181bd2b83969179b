"""Domains: rows of one page, country or market, told apart by an id, and what a model keeps for each of them.

Star topology: Sheng et al., CIKM 2021, https://arxiv.org/abs/2101.11427, section 4.
"""

# B rows, P domains with weights of their own, S sets of weights that rows of a batch use, D input width, O output width

from collections.abc import Mapping, Sequence

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from recmoe.architectures.seam import ArchitectureKind, Parts
from recmoe.axes import Labels, RowLabel, WeightAxes
from recmoe.moe.linear import Groups, id_group


class DomainKind(ArchitectureKind):
    """A kind that knows the domain of a row by the id of a feature."""

    domain: str | None = None
    """Feature of kind id that says which domain a row is of, such as the page; without one all rows are of one."""
    max_domains: PositiveInt = 64
    """Domains with weights of their own: the first ids of the vocabulary, which are the most frequent. Others, and ids
    that are unknown or missing, use what is shared."""

    def id_features(self) -> Mapping[str, str]:
        """The domain."""
        return {} if self.domain is None else {"domain": self.domain}

    def domains(self, parts: Parts) -> "Domains":
        """Those that the model tells apart."""
        if self.domain is None:
            return Domains(None, 0)
        return Domains(self.domain, min(parts.num_ids[self.domain] - 1, self.max_domains))


class Domains:
    """The domains of a model.

    Args:
        feature: whose id says it; None where nothing does.
        num: P.
    """

    def __init__(self, feature: str | None, num: int) -> None:
        self.feature = feature
        self.num = num

    @property
    def labels(self) -> Labels:
        """What P indices stand for; see ``recmoe.axes``."""
        return tuple(RowLabel(self.feature or "", row) for row in range(1, self.num + 1))

    def of(self, groups: Groups, num_rows: int, device: torch.device) -> "DomainRows":
        """The domains of some rows."""
        if not self.num:
            return DomainRows(torch.zeros(num_rows, dtype=torch.int64, device=device), 0)
        assert self.feature is not None
        ids_B = groups[id_group(self.feature)]
        assert isinstance(ids_B, Tensor)
        return DomainRows(torch.where(ids_B <= self.num, ids_B, 0), self.num)


class DomainRows:
    """Rows by their domain, of which 0 is what is shared.

    Example: six rows of three domains, of which the last is not there::

        domain_B   2  0  1  2  0  0        order_B  1  4  5  2  0  3        counts  3  1  2  0

    Args:
        domain_B: int64, 0 … P.
        num: P.
    """

    def __init__(self, domain_B: Tensor, num: int) -> None:
        self.domain_B = domain_B
        self.num = num
        self.order_B = domain_B.argsort(stable=True)
        self.place_B = self.order_B.argsort()
        # A GPU is asked once per batch, and each set of weights is then multiplied with its rows alone.
        self.counts: list[int] = torch.bincount(domain_B, minlength=num + 1).tolist()

    @property
    def present(self) -> list[int]:
        """Domains of which there are rows."""
        return [domain for domain, count in enumerate(self.counts) if count]

    def linear(self, x_BD: Tensor, weights_SOD: Sequence[Tensor], biases_SO: Sequence[Tensor]) -> Tensor:
        """y_BO: every row times the matrix of its domain; matrices and biases of those that are present, in order."""
        pieces = torch.split(x_BD.index_select(0, self.order_B), [self.counts[domain] for domain in self.present])
        parts = zip(pieces, weights_SOD, biases_SO, strict=True)
        y_BO = torch.cat([functional.linear(piece, weight, bias) for piece, weight, bias in parts])
        return y_BO.index_select(0, self.place_B)

    def own_of(self, shared: Tensor, own_P: Tensor | None) -> list[Tensor]:
        """By domain that is present: the shared weight, and what the domain adds to 1 or to 0 in its place."""
        zero = torch.zeros_like(shared)
        if own_P is None:
            return [zero for _ in self.present]
        chosen = torch.tensor([domain - 1 for domain in self.present if domain], dtype=torch.int64)
        own = own_P.index_select(0, chosen.to(own_P.device))
        # The sum of what is chosen of none is 0; every weight has a gradient, which other workers wait for.
        first = [zero + own[:0].sum()] if 0 in self.present else []
        return [*first, *own.unbind(0)]


class StarLinear(nn.Module):
    """A linear layer whose weights are those of all domains times those of one; equation 4::

        y = ((1 + V_p) ⊗ W) · x + b + c_p

    V and c begin at 0, so that every domain begins as what is shared; a row of no domain has W and b alone.

    Args:
        in_features, out_features: D and O.
        domains: each has a V and a c.
    """

    def __init__(self, *, in_features: int, out_features: int, domains: Domains) -> None:
        super().__init__()
        self.domains = domains
        self.shared = nn.Linear(in_features, out_features)
        self.own_POD: nn.Parameter | None = None
        self.own_PO: nn.Parameter | None = None
        if domains.num:
            self.own_POD = nn.Parameter(torch.zeros(domains.num, out_features, in_features))
            self.own_PO = nn.Parameter(torch.zeros(domains.num, out_features))

    def weight_axes(self) -> WeightAxes:
        """Which axis is the domains."""
        return {"own_POD": (self.domains.labels, None, None), "own_PO": (self.domains.labels, None)}

    def forward(self, x_BD: Tensor, rows: DomainRows) -> Tensor:
        """y_BO."""
        weight, bias = self.shared.weight, self.shared.bias
        weights = [(1 + own) * weight for own in rows.own_of(weight, self.own_POD)]
        return rows.linear(x_BD, weights, [bias + own for own in rows.own_of(bias, self.own_PO)])


class PartitionedNorm(nn.Module):
    """Normalisation by the mean and the variance of a row's own domain; equations 1-2::

        z' = (1 + g) (1 + g_p) ⊗ (z − μ_p) / √(σ²_p + ε) + β + β_p

    In training μ and σ² are those of the domain's rows in the batch of the worker, or, where there are fewer than two,
    the running ones, which are used in serving: there a row does not depend on its neighbours. A row of no domain
    is normalised by the statistics of all rows.

    Args:
        num_features: D.
        domains: each has statistics, a factor and a shift.
        momentum: share of the running statistics that a batch replaces.
        eps: ε.
    """

    mean_SD: Tensor
    """Running, of all rows and then of each domain."""
    spread_SD: Tensor
    """Running variance less 1: what is set to 0, as that of a new column is, means a variance of 1."""

    def __init__(self, *, num_features: int, domains: Domains, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.domains = domains
        self.momentum = momentum
        self.eps = eps
        self.factor_D = nn.Parameter(torch.zeros(num_features))
        self.shift_D = nn.Parameter(torch.zeros(num_features))
        own = (domains.num, num_features)
        self.factor_PD = nn.Parameter(torch.zeros(own)) if domains.num else None
        self.shift_PD = nn.Parameter(torch.zeros(own)) if domains.num else None
        self.register_buffer("mean_SD", torch.zeros(domains.num + 1, num_features))
        self.register_buffer("spread_SD", torch.zeros(domains.num + 1, num_features))

    def weight_axes(self) -> WeightAxes:
        """Which axes are the domains; the input's columns are found by the width."""
        own = (self.domains.labels, None)
        all_and_own = (("all rows", *self.domains.labels), None)
        return {
            **{"factor_D": (None,), "shift_D": (None,), "factor_PD": own, "shift_PD": own},
            **{"mean_SD": all_and_own, "spread_SD": all_and_own},
        }

    def forward(self, x_BD: Tensor, rows: DomainRows) -> Tensor:
        """z'_BD in float32 or wider."""
        with torch.autocast(x_BD.device.type, enabled=False):
            x_BD = x_BD.to(self.factor_D.dtype)
            mean_SD, variance_SD = self.mean_SD, self.spread_SD + 1
            if self.training:
                mean_SD, variance_SD = self._of_batch(x_BD, rows)
            at_B = rows.domain_B
            normal_BD = (x_BD - mean_SD[at_B]) * torch.rsqrt(variance_SD[at_B] + self.eps)
            factor_BD: Tensor = 1 + self.factor_D
            shift_BD: Tensor = self.shift_D
            if self.factor_PD is not None and self.shift_PD is not None:
                factor_BD = factor_BD * (1 + functional.pad(self.factor_PD, (0, 0, 1, 0))[at_B])
                shift_BD = shift_BD + functional.pad(self.shift_PD, (0, 0, 1, 0))[at_B]
            return factor_BD * normal_BD + shift_BD

    def _of_batch(self, x_BD: Tensor, rows: DomainRows) -> tuple[Tensor, Tensor]:
        """Mean and variance of all rows and of each domain; the running ones move towards them."""
        count_S1 = x_BD.new_tensor([len(x_BD), *rows.counts[1:]])[:, None]
        mean_SD = self._sums(x_BD, rows) / count_S1.clamp(min=1)
        all_BD, own_BD = x_BD - mean_SD[0], x_BD - mean_SD[rows.domain_B]
        squares_SD = self._sums(own_BD.square(), rows, of_all_BD=all_BD.square())
        variance_SD = squares_SD / count_S1.clamp(min=1)
        is_enough_S1 = count_S1 >= 2
        # As everywhere, the running variance is that of the population that the batch is a sample of.
        population_SD = squares_SD.detach() / (count_S1 - 1).clamp(min=1)
        before_mean_SD, before_SD = self.mean_SD.clone(), self.spread_SD + 1
        with torch.no_grad():
            share_SD = (self.momentum * is_enough_S1.to(x_BD.dtype)).expand_as(mean_SD)
            self.mean_SD.lerp_(mean_SD.detach(), share_SD)
            self.spread_SD.lerp_(population_SD - 1, share_SD)
        return torch.where(is_enough_S1, mean_SD, before_mean_SD), torch.where(is_enough_S1, variance_SD, before_SD)

    def _sums(self, x_BD: Tensor, rows: DomainRows, *, of_all_BD: Tensor | None = None) -> Tensor:
        """Over all rows, then over those of each domain."""
        by_domain_SD = x_BD.new_zeros(rows.num + 1, x_BD.shape[1]).index_add(0, rows.domain_B, x_BD)
        all_1D = (x_BD if of_all_BD is None else of_all_BD).sum(dim=0, keepdim=True)
        return torch.cat([all_1D, by_domain_SD[1:]])
