"""Bias: what moves the choice of a sparse gate towards experts with few rows, without a gradient.

Loss-free balancing: Wang et al. 2024, https://arxiv.org/abs/2408.15664, algorithm 1.
"""

# B rows, V experts visible to a gate

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from recmoe.moe.balance.statistics import mean_of, single_gates_of
from recmoe.moe.balance.term import BalanceKind, BalanceTerm
from recmoe.moe.gate_use import GateUse
from recmoe.moe.gates.gate import Detail, TakesBias
from recmoe.workers import sum_over_workers


class BiasConfig(BalanceKind):
    """A bias per expert moves the choice of sparse gates towards experts with few rows (Wang et al. 2024)."""

    reads: ClassVar[frozenset[Detail]] = frozenset({"bias"})
    kind: Literal["bias"] = "bias"
    rate: PositiveFloat = 0.001
    """What a step adds to the bias of an expert with too few rows, or takes from it; shares lie between 0 and 1."""

    def prepare(self, model: nn.Module) -> None:
        """Every gate that chooses keeps its biases, which a model that serves reads, too."""
        for module in model.modules():
            if isinstance(module, TakesBias):
                module.take_bias()

    def build(self, *, task_names: Sequence[str]) -> BalanceTerm:
        """The term; it does not know tasks."""
        del task_names
        return BiasUpdate(rate=self.rate)


@dataclass(frozen=True)
class BiasUpdate:
    """After the choice of a step, for every expert that a gate sees::

        bias_v += rate · sign(mean_w count_w - count_v),      count_v = rows that chose expert v

    over the rows of all workers: the biases stay the same in each. The next step is the first that reads them.

    What it gives is no loss: max_v count_v / mean_w count_w - 1, the largest violation of an even load, as a mean over
    gates.

    Args:
        rate: of one step.
    """

    rate: float

    @torch.no_grad()
    def __call__(self, uses: Sequence[GateUse]) -> Tensor:
        """The largest violation, before this update; see ``BalanceTerm``."""
        gates = [(gate.weights_BV, gate.bias_V) for gate in single_gates_of(uses) if gate.bias_V is not None]
        if not gates:
            return mean_of([])
        # Whole numbers: sums over workers are exact, and so is what lies at the mean.
        counts = sum_over_workers(torch.cat([(weights_BV > 0).sum(dim=0) for weights_BV, _ in gates]))
        violations = []
        for count_V, (_, bias_V) in zip(torch.split(counts, [len(bias_V) for _, bias_V in gates]), gates, strict=True):
            missing_V = count_V.sum() - len(count_V) * count_V
            bias_V += self.rate * missing_V.sign()
            violations.append(len(count_V) * count_V.max() / count_V.sum() - 1.0)
        return mean_of(violations)
