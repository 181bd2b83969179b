"""Diversity: the outputs of a level's experts shall point in different directions.

Guo et al., NeurIPS 2025, https://arxiv.org/abs/2505.22323, whose orthogonality loss has the same minimum.
"""

# B rows, E experts, H expert width

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional

from recmoe.moe.balance.statistics import mean_of
from recmoe.moe.balance.term import BalanceLossKind, BalanceTerm
from recmoe.moe.gate_use import GateUse


class DiversityConfig(BalanceLossKind):
    """The outputs of a level's experts shall point in different directions."""

    kind: Literal["diversity"] = "diversity"
    rows: PositiveInt = 256
    """Rows per step and worker on which all experts are computed for it."""

    def build(self, *, task_names: Sequence[str]) -> BalanceTerm:
        """The term; it does not know tasks."""
        del task_names
        return DiversityLoss(rows=self.rows)


@dataclass(frozen=True)
class DiversityLoss:
    """Mean over levels, rows and pairs of experts of cos²(y_e[b], y_f[b]): 0 where they are orthogonal, 1 where alike.

    A level's experts are computed once more on the first rows of the batch, all of them, so that it holds for sparse
    gates and any way of computing experts. A mean of what each row costs: every worker gives that of its own rows.

    Args:
        rows: per step and worker, at most.
    """

    rows: int

    def __call__(self, uses: Sequence[GateUse]) -> Tensor:
        """The term; see ``BalanceTerm``."""
        levels = []
        for use in uses:
            outputs = {} if use.outputs is None else use.outputs(min(self.rows, len(use.weights_BGE)))
            num_experts = len(outputs)
            if num_experts < 2:
                continue
            y_EBH = torch.stack(list(outputs.values())).float()
            unit_BEH = functional.normalize(y_EBH, dim=2, eps=1e-6).transpose(0, 1)
            squares_BEE = (unit_BEH @ unit_BEH.transpose(1, 2)).square()
            # Without the diagonal, whose squares are 1, or 0 where an output is.
            of_pairs_B = squares_BEE.sum(dim=(1, 2)) - squares_BEE.diagonal(dim1=1, dim2=2).sum(dim=1)
            levels.append(of_pairs_B.mean() / (num_experts * (num_experts - 1)))
        return mean_of(levels)
