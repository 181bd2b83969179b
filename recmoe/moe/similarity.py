"""ExpertSimilarity: how alike the outputs of a level's experts are, by linear CKA.

CKA: Kornblith et al., ICML 2019, https://arxiv.org/abs/1905.00414. Over batches, without its bias on few rows: Nguyen
et al., ICLR 2021, https://arxiv.org/abs/2010.15327, equations 2 and 3; HSIC_1 is of Song et al., JMLR 13, 2012.
"""

# N rows of a block, E experts, H width of an expert's output

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

MAX_EXPERTS = 64
"""Experts of a level that are compared, the first ones; every two of them have a number."""
FEWEST_ROWS = 64
"""Rows over which experts are compared, at least: over fewer the similarity is mostly chance."""
BLOCK_ROWS = 256
"""Rows that are compared with one another; so many times as many numbers are held per expert."""
FEWEST_ROWS_OF_BLOCK = 4
"""Rows of which HSIC_1 is defined."""
SMALLEST_SPREAD = 1e-6
"""Part of the length of outputs: what varies less from row to row is constant, but for rounding."""


@dataclass(frozen=True)
class ExpertSimilarity:
    """Linear CKA of the outputs of every two experts, over the rows of some blocks, segment by segment::

        CKA(e, f) = HSIC(e, f) / √(HSIC(e, e) · HSIC(f, f)),    HSIC(e, f) = Σ over blocks of N · HSIC_1(K_e, K_f)

    with K_e[i, j] = y_e[i] · y_e[j]. It is 1 for experts that give the same but for a rotation, a factor and a
    constant, and about 0 for experts that have nothing to do with each other. The paper's blocks are batches of one
    size, and have one weight; blocks of a segment differ in size, and have their rows as weights.
    """

    experts: tuple[str, ...]
    """Those that are compared: with an output of their own, the first of very many; none where none are given."""
    hsic: Mapping[str, Tensor] = field(default_factory=dict)
    """By segment, the sums over blocks; float64 [E, E] on the CPU."""
    num_rows: Mapping[str, int] = field(default_factory=dict)
    """By segment."""

    def merge(self, other: "ExpertSimilarity") -> "ExpertSimilarity":
        """The similarity over the rows of both, where one may have seen no rows at all."""
        assert self.experts == other.experts or not (self.experts and other.experts), "not the same experts"
        hsic, num_rows = dict(self.hsic), dict(self.num_rows)
        for name, hsic_EE in other.hsic.items():
            hsic[name] = hsic[name] + hsic_EE if name in hsic else hsic_EE
            num_rows[name] = num_rows.get(name, 0) + other.num_rows[name]
        return ExpertSimilarity(self.experts or other.experts, hsic, num_rows)

    def cka(self, segment: str) -> Tensor | None:
        """cka_EE, float64; NaN for an expert that gives the same in every row. None of fewer rows than are enough."""
        if self.num_rows.get(segment, 0) < FEWEST_ROWS:
            return None
        hsic_EE = self.hsic[segment]
        length_E = hsic_EE.diagonal().sqrt()
        cka_EE = hsic_EE / (length_E[:, None] * length_E)
        # From unbiased estimates it may come out a little outside of what it estimates.
        return cka_EE.clamp(0.0, 1.0)

    def mean(self, segment: str, experts: Sequence[str] | None = None) -> float | None:
        """The mean over the pairs of some experts, of all by default; None where no pair has a similarity."""
        cka_EE = self.cka(segment)
        chosen = [place for place, name in enumerate(self.experts) if experts is None or name in experts]
        if cka_EE is None or len(chosen) < 2:
            return None
        pairs = torch.combinations(torch.tensor(chosen)).unbind(1)
        found = cka_EE[pairs]
        found = found[found.isfinite()]
        return float(found.mean()) if len(found) else None


def similarity_of(outputs: Mapping[str, Tensor], segments: Mapping[str, Tensor]) -> ExpertSimilarity:
    """Of experts on the rows of one batch.

    Args:
        outputs: by expert, one row each of the batch's first rows.
        segments: rows of each segment, int64; blocks with too few rows are left out.
    """
    if len(outputs) < 2:
        return ExpertSimilarity(())
    names = tuple(outputs)[:MAX_EXPERTS]
    y_ENH = torch.stack([outputs[name] for name in names]).double()
    sums: dict[str, Tensor] = {}
    num_rows: dict[str, int] = {}
    for name, rows in segments.items():
        for rows_N in torch.split(rows.to(y_ENH.device), BLOCK_ROWS):
            if len(rows_N) >= FEWEST_ROWS_OF_BLOCK:
                hsic_EE = len(rows_N) * hsic(y_ENH[:, rows_N])
                sums[name] = sums[name] + hsic_EE if name in sums else hsic_EE
                num_rows[name] = num_rows.get(name, 0) + len(rows_N)
    return ExpertSimilarity(names, {name: hsic_EE.cpu() for name, hsic_EE in sums.items()}, num_rows)


def hsic(y_ENH: Tensor) -> Tensor:
    """HSIC_1 of the linear kernels of every two experts, [E, E]; needs four rows.

    Song's equation is the inner product of two kernels that are U-centred (Székely and Rizzo, Annals of Statistics 42,
    2014), which is how it is computed here, once per expert::

        HSIC_1(K, L) = Σ over i ≠ j of K̃[i, j] · L̃[i, j] / (N · (N - 3))
        K̃[i, j] = K[i, j] - Σ_l K[i, l] / (N - 2) - Σ_l K[l, j] / (N - 2) + Σ_kl K[k, l] / ((N - 1) · (N - 2))
    """
    num_rows = y_ENH.shape[1]
    centred_ENH = y_ENH - y_ENH.mean(dim=1, keepdim=True)
    is_constant_E = centred_ENH.flatten(1).norm(dim=1) <= SMALLEST_SPREAD * y_ENH.flatten(1).norm(dim=1)
    centred_ENH = torch.where(is_constant_E[:, None, None], 0.0, centred_ENH)
    is_self_NN = torch.eye(num_rows, dtype=torch.bool, device=y_ENH.device)
    kernel_ENN = (centred_ENH @ centred_ENH.transpose(1, 2)).masked_fill(is_self_NN, 0.0)
    sums_EN = kernel_ENN.sum(dim=1)
    totals_E11 = sums_EN.sum(dim=1)[:, None, None]
    by_rows_ENN = (sums_EN[:, :, None] + sums_EN[:, None, :]) / (num_rows - 2)
    kernel_ENN = kernel_ENN - by_rows_ENN + totals_E11 / ((num_rows - 1) * (num_rows - 2))
    flat = kernel_ENN.masked_fill(is_self_NN, 0.0).flatten(1)
    return flat @ flat.t() / (num_rows * (num_rows - 3))
