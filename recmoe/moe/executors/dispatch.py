"""dispatched(): only the pairs of row and expert that some gate chose."""

# B rows, G gates, E experts, H expert width,
# T triples (row, gate, expert) with a weight, P pairs (row, expert) to compute

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from recmoe.moe.experts.stack import ExpertStack
from recmoe.moe.linear import SidedInput, select_rows


def dispatched(
    experts: ExpertStack,
    inputs: Sequence[Tensor | SidedInput],
    *,
    weights_BGE: Tensor,
    copies: Callable[[Sequence[Tensor]], Sequence[Sequence[Tensor]]] | None = None,
) -> list[Tensor]:
    """One h_BH per gate, from the pairs of row and expert that have a weight.

    Args:
        inputs: of the layer.
        weights_BGE: zero where a gate did not choose an expert.
        copies: from the output of every expert to what each gate reads of them; without it all read the outputs.
    """
    num_rows, num_gates, num_experts = weights_BGE.shape
    expert_T, row_T, gate_T = weights_BGE.detach().permute(2, 0, 1).nonzero(as_tuple=True)
    # Gates may agree on a pair: it is computed once.
    pairs_P, pair_T = torch.unique_consecutive(expert_T * num_rows + row_T, return_inverse=True)
    rows_per_expert = torch.bincount(pairs_P // num_rows, minlength=num_experts).tolist()
    rows_E = (pairs_P % num_rows).split(rows_per_expert)
    outputs = experts.each(
        [select_rows(inputs[read], rows) for read, rows in zip(experts.input_of_expert, rows_E, strict=True)]
    )
    if copies is None:
        y_PH = torch.cat(outputs)
    else:
        # The pairs of one gate after those of another.
        y_PH = torch.cat([torch.cat(list(of_gate)) for of_gate in copies(outputs)])
        pair_T = pair_T + gate_T * len(pairs_P)
    weights_T = weights_BGE[row_T, gate_T, expert_T].to(y_PH.dtype)
    h_GBH = y_PH.new_zeros(num_gates * num_rows, experts.out_features).index_add(
        0, gate_T * num_rows + row_T, weights_T.unsqueeze(1) * y_PH.index_select(0, pair_T)
    )
    return list(h_GBH.view(num_gates, num_rows, experts.out_features).unbind(0))
