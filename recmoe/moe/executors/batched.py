"""mixed_in_one(): all experts at once and one product with all weights, for a GPU."""

# B rows, G gates, E experts, H expert width

from collections.abc import Sequence

import torch
from torch import Tensor

from recmoe.moe.experts.stack import ExpertStack
from recmoe.moe.linear import SidedInput


def mixed_in_one(experts: ExpertStack, inputs: Sequence[Tensor | SidedInput], *, weights_BGE: Tensor) -> list[Tensor]:
    """One h_BH per gate, from few large kernels.

    Args:
        inputs: of the layer.
        weights_BGE: zero where a gate does not see an expert.
    """
    y_EBH = experts.batched(inputs)
    h_GBH = torch.einsum("bge,ebh->gbh", weights_BGE.to(y_EBH.dtype), y_EBH)
    return list(h_GBH.unbind(0))
