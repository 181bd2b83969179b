"""dispatched(): only the pairs of row and expert that some gate chose."""

# B rows, G gates, E experts, H expert width,
# T triples (row, gate, expert) with a weight, P pairs (row, expert) to compute

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional

from recmoe.moe.experts.stack import ExpertStack
from recmoe.moe.linear import SidedInput, compute_dtype, select_groups

FEW_KERNELS = 64
"""On a CPU, numbers of rows in bf16 are multiples of it: oneDNN makes a kernel for every number that it has not met,
which takes longer than the product itself."""


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
    if weights_BGE.device.type == "cpu" and compute_dtype(weights_BGE) == torch.bfloat16:
        rows_E, place_P = filled_up(rows_E)
        pair_T = place_P[pair_T]
    outputs = experts.each(_rows_of_experts(inputs, experts.input_of_expert, rows_E))
    if copies is None:
        y_PH = torch.cat(outputs)
    else:
        # The pairs of one gate after those of another.
        y_PH = torch.cat([torch.cat(list(of_gate)) for of_gate in copies(outputs)])
        pair_T = pair_T + gate_T * sum(len(rows) for rows in rows_E)
    weights_T = weights_BGE[row_T, gate_T, expert_T].to(y_PH.dtype)
    h_GBH = y_PH.new_zeros(num_gates * num_rows, experts.out_features).index_add(
        0, gate_T * num_rows + row_T, weights_T.unsqueeze(1) * y_PH.index_select(0, pair_T)
    )
    return list(h_GBH.view(num_gates, num_rows, experts.out_features).unbind(0))


def filled_up(rows_E: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
    """The rows of each expert and as many others as it takes; where the pairs of row and expert now lie.

    What is made of the others is read by no gate.
    """
    filled = [functional.pad(rows, (0, -len(rows) % FEW_KERNELS)) for rows in rows_E]
    starts = accumulate((len(rows) for rows in filled), initial=0)
    places = [torch.arange(start, start + len(rows)) for start, rows in zip(starts, rows_E, strict=False)]
    return filled, torch.cat(places)


def _rows_of_experts(
    inputs: Sequence[Tensor | SidedInput], input_of_expert: Sequence[int], rows_E: Sequence[Tensor]
) -> list[Tensor | SidedInput]:
    """What each expert is to compute; of experts that read the same input, by one selection."""
    selected: dict[int, Tensor | SidedInput] = {}
    for read in dict.fromkeys(input_of_expert):
        readers = [expert for expert, index in enumerate(input_of_expert) if index == read]
        selected |= zip(readers, select_groups(inputs[read], [rows_E[expert] for expert in readers]), strict=True)
    return [selected[expert] for expert in range(len(input_of_expert))]
