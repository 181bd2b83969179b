"""PolicyLosses: by what gates learn that draw their experts: the losses of the tasks, row by row, as rewards.

Routing networks: Rosenbaum et al., ICLR 2018, https://arxiv.org/abs/1711.01239, section 3; REINFORCE with a baseline:
Williams, Machine Learning 1992, https://doi.org/10.1007/BF00992696.
"""

# B rows, T tasks

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from recmoe.architectures.seam import Targets
from recmoe.moe.gate_use import GateUse

POLICY = "gates.policy"
BASELINE = "gates.baseline"


class PolicyLosses:
    """Sums over levels and gates g, and over the rows b that count for g; divided by B::

        gates.policy     Σ_g Σ_b (L_g[b] - l_g(x[b])) · log π_g(a[b] | x[b])
        gates.baseline   Σ_g Σ_b (L_g[b] - l_g(x[b]))²

    where a is the expert that was drawn, L_g what the task of gate g lost in the row, and l_g what the gate expected
    to lose. The paper's reward of a regression is -L; its reward of a classification, 1 or -1, would know nothing of
    probabilities, so that it is -L here, too. In gates.policy the first factor has no gradient. A draw with which a row
    lost more than expected gets less probable.

    A gate that belongs to no task, such as PLE's shared one, answers for all: L is the sum over the tasks that count.
    A gate of a lower level answers for its own task alone, though others may read what it gives.

    Args:
        task_names: T, in the order of the targets.
    """

    weights: ClassVar[Mapping[str, float]] = {POLICY: 1.0, BASELINE: 1.0}

    def __init__(self, task_names: Sequence[str]) -> None:
        self._tasks = {name: place for place, name in enumerate(task_names)}

    def __call__(self, uses: Sequence[GateUse], targets: Targets) -> dict[str, Tensor]:
        """Both losses; a batch on which no gate drew has none."""
        assert targets.losses_BT is not None, "rewards are known once the tasks have predicted"
        policies, baselines = [], []
        for use in uses:
            for name, given in zip(use.gates, use.by_gate, strict=True):
                lost_B, counts_B = self._lost(name, targets.losses_BT, targets.weights_BT)
                for single in given.inner or (given,):
                    if single.policy is None:
                        continue
                    log_chance_B, expected_B, is_used_B = single.policy
                    weights_B = counts_B if is_used_B is None else counts_B * is_used_B
                    surprise_B = weights_B * (lost_B - expected_B)
                    policies.append((surprise_B.detach() * log_chance_B).mean())
                    baselines.append(surprise_B.square().mean())
        none = targets.losses_BT.new_zeros(1)
        return {POLICY: torch.stack(policies or [*none]).sum(), BASELINE: torch.stack(baselines or [*none]).sum()}

    def _lost(self, gate: str, losses_BT: Tensor, weights_BT: Tensor) -> tuple[Tensor, Tensor]:
        """What a gate answers for in each row, and 1 where the row counts for it."""
        if gate in self._tasks:
            place = self._tasks[gate]
            return losses_BT[:, place], (weights_BT[:, place] > 0).to(losses_BT.dtype)
        return losses_BT.sum(dim=1), (weights_BT > 0).any(dim=1).to(losses_BT.dtype)
