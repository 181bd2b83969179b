"""dispatched_in_place(): only the pairs of row and expert that some gate chose, counted where they are.

On a GPU the host never waits for a count: what is computed has the size of what may be chosen at most, and products
end where the pairs do.
"""

# B rows, G gates, E experts, D input width, H expert width, K experts that a gate may choose for a row,
# P pairs (row, expert) that may be chosen at most

from collections.abc import Sequence

import torch
from torch import Tensor

from recmoe.moe.executors.forked import ForkShared
from recmoe.moe.experts.stack import TakesGroups
from recmoe.moe.grouped import RowGroups
from recmoe.moe.linear import SidedInput, rows_of


def dispatched_in_place(
    experts: TakesGroups,
    inputs: Sequence[Tensor | SidedInput],
    *,
    read_E: Tensor,
    weights_BGE: Tensor,
    num_used: Sequence[int],
    num_pairs: int,
    is_shared_E: Tensor | None = None,
    fork: ForkShared | None = None,
) -> list[Tensor]:
    """One h_BH per gate, from the pairs of row and expert that have a weight.

    Args:
        experts: of the layer.
        inputs: of the layer.
        read_E: int64, by expert: which of the inputs it reads.
        weights_BGE: zero where a gate did not choose an expert.
        num_used: of each gate, the experts with a weight per row, at most.
        num_pairs: of all gates together, likewise.
        is_shared_E: bool, by expert: whether several gates see it; asked for with ``fork``.
        fork: gives every gate a copy of what shared experts make, so that gradients are kept apart.
    """
    num_rows, _, num_experts = weights_BGE.shape
    room = num_rows * min(num_experts, num_pairs)
    # Gates may agree on a pair: it is computed once.
    is_chosen_EB = (weights_BGE.detach() != 0).any(dim=1).t()
    place_EB = is_chosen_EB.flatten().cumsum(0).view(num_experts, num_rows) - 1
    groups = RowGroups.of_counts(is_chosen_EB.sum(dim=1), room)
    row_EB = read_E[:, None] * num_rows + torch.arange(num_rows, device=read_E.device)
    # What is not chosen goes to a place behind the last, which is cut off.
    last_EB = torch.where(is_chosen_EB, place_EB, room)
    row_P = row_EB.new_zeros(room + 1).scatter(0, last_EB.flatten(), row_EB.flatten())[:room]
    x_ND = torch.cat([rows_of(x) for x in inputs]) if len(inputs) > 1 else rows_of(inputs[0])
    y_PH = experts.grouped(groups.used(x_ND.index_select(0, row_P)), groups)
    read = [y_PH] * len(num_used)
    if fork is not None:
        assert is_shared_E is not None, "which experts several gates see"
        is_shared_P1 = is_shared_E.index_select(0, groups.expert_P).unsqueeze(1)
        # What one gate alone reads must not weigh when the gates' gradients are compared.
        read = [torch.where(is_shared_P1, copy_PH, y_PH) for (copy_PH,) in fork([y_PH])]
    return [
        _mixed(own_PH, weights_BE, place_EB, count)
        for own_PH, weights_BE, count in zip(read, weights_BGE.unbind(1), num_used, strict=True)
    ]


def _mixed(y_PH: Tensor, weights_BE: Tensor, place_EB: Tensor, num_used: int) -> Tensor:
    """h_BH of one gate."""
    if num_used == weights_BE.shape[1]:
        weights_BK, place_BK = weights_BE, place_EB.t()
    else:
        # Weights that a layer mixes around its gates may be below zero.
        expert_BK = weights_BE.detach().abs().topk(num_used, dim=1).indices
        weights_BK = weights_BE.gather(1, expert_BK)
        place_BK = place_EB.t().gather(1, expert_BK)
    # A weight of zero belongs to no pair, whatever lies at its place.
    weights_BK = torch.where(weights_BK != 0, weights_BK, 0.0).to(y_PH.dtype)
    y_BKH = y_PH.index_select(0, place_BK.clamp(min=0).flatten()).view(*place_BK.shape, y_PH.shape[1])
    return torch.einsum("bk,bkh->bh", weights_BK, y_BKH)
