"""Gates that each mix copies of their own, so that the gradients that they send to the experts can be told apart."""

# B rows, G gates, E experts, V experts visible to a gate, H width

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from recmoe.moe.executors.loop import mix

ForkShared = Callable[[Sequence[Tensor]], list[list[Tensor]]]
"""From what several gates read to as many copies as there are gates; what merges their gradients."""


def copies_by_gate(outputs: Sequence[Tensor], *, seen: Sequence[Sequence[int]], fork: ForkShared) -> list[list[Tensor]]:
    """What each gate reads of all E experts: a copy where other gates see an expert too, else its output itself.

    Args:
        outputs: per expert, of any shape.
        seen: of each gate, the experts that it sees.
    """
    shared = [expert for expert in range(len(outputs)) if sum(expert in of_gate for of_gate in seen) > 1]
    by_gate = []
    for copies in fork([outputs[expert] for expert in shared]):
        own = list(outputs)
        for expert, copy in zip(shared, copies, strict=True):
            own[expert] = copy
        by_gate.append(own)
    return by_gate


def mixed_apart(
    outputs: Sequence[Sequence[Tensor]],
    *,
    weights: Sequence[Tensor],
    seen: Sequence[Sequence[int]],
    is_batched: bool,
) -> list[Tensor]:
    """h_BH = Σ_v p[b, v] · y_v[b] for every gate.

    Args:
        outputs: of each gate, what it reads: y_BH of all E experts.
        weights: p_BV per gate.
        seen: of each gate, the expert that each column of its weights belongs to.
        is_batched: by one product per gate, for a GPU.
    """
    mixed = []
    for own, p_BV, experts in zip(outputs, weights, seen, strict=True):
        read = [own[expert] for expert in experts]
        if is_batched:
            mixed.append(torch.einsum("bv,vbh->bh", p_BV.to(read[0].dtype), torch.stack(read)))
        else:
            mixed += mix(read, weights=[p_BV], seen=[range(len(read))])
    return mixed
