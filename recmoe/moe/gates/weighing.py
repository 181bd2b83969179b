"""weigh_all(): what the gates of a layer give, with one product for neighbours that read the same input."""

# B rows, V experts visible to a gate, D input width, L logits of a gate's product

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from recmoe.moe.gates.gate import Gate, LinearForm, TellsMore, Weighed, weighed
from recmoe.moe.gates.softmax import gate_logits
from recmoe.moe.linear import Groups, SidedInput


def weigh_all(
    gates: Sequence[Gate], reads: Sequence[int], inputs: Sequence[Tensor | SidedInput], groups: Groups
) -> list[Weighed]:
    """What every gate gives.

    Args:
        gates: in the order of the result.
        reads: which of the inputs each reads.
        inputs: x_BD, or the sided inputs that stand for them.
        groups: what gates may read besides.
    """
    places = list(zip(reads, gates, [gate.linear_form() for gate in gates], strict=True))
    by_gate: list[Weighed] = []
    for (read, is_linear), run in groupby(places, key=lambda place: (place[0], place[2] is not None)):
        if is_linear:
            by_gate += _joint(inputs[read], [form for _, _, form in run if form is not None])
        else:
            by_gate += [_called(gate, inputs[read], groups) for _, gate, _ in run]
    return by_gate


def weigh_one(gate: Gate, x: Tensor | SidedInput, groups: Groups) -> Weighed:
    """What one gate gives, by a product of its own."""
    form = gate.linear_form()
    return _called(gate, x, groups) if form is None else weighed(form.shares(gate_logits(x, form.weight_LD)))


def _called(gate: Gate, x: Tensor | SidedInput, groups: Groups) -> Weighed:
    """What a gate without a linear form gives."""
    return gate.weigh(x, groups) if isinstance(gate, TellsMore) else Weighed(gate(x, groups))


def _joint(x: Tensor | SidedInput, forms: Sequence[LinearForm]) -> list[Weighed]:
    """What gates that read one input give, from one product."""
    weights = [form.weight_LD for form in forms]
    logits = torch.split(gate_logits(x, *weights), [len(weight_LD) for weight_LD in weights], dim=1)
    return [weighed(form.shares(logits_BL)) for form, logits_BL in zip(forms, logits, strict=True)]
