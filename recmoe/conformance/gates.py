"""What must hold for every gate."""

# B rows, V visible experts

from typing import Any

import torch
from torch import Tensor

from recmoe.axes import EXPERTS, of_all_experts
from recmoe.conformance.loop import check_loop
from recmoe.conformance.outcome import Deviation, NotApplicable, Property, require
from recmoe.conformance.planted import check_planted_tasks
from recmoe.conformance.probes import NUM_FEATURES, difference, rows, sided_rows
from recmoe.conformance.subject import Subject
from recmoe.conformance.work import check_work_of_gate, layer_of
from recmoe.moe.gates.gate import untaught_by
from recmoe.moe.linear import SidedInput

NUM_EXPERTS = 7
NUM_ROWS = 50
TOLERANCE = 1e-6


def _gate(subject: Subject, *, num_experts: int = NUM_EXPERTS, is_training: bool = False) -> Any:
    torch.manual_seed(0)
    return subject.config.build(in_features=NUM_FEATURES, num_experts=num_experts).train(is_training)


def _weights(gate: Any, x: Tensor | SidedInput) -> Tensor:
    """p_BV as a server computes it."""
    with torch.no_grad():
        p_BV: Tensor = gate(x)
    return p_BV


def _check_shares(subject: Subject) -> str:
    sums_to_one = True
    for num_experts in (1, 2, NUM_EXPERTS):
        gate = _gate(subject, num_experts=num_experts)
        sums_to_one = getattr(gate, "sums_to_one", True)
        for num_rows in (1, NUM_ROWS):
            p_BV = _weights(gate, rows(num_rows))
            wanted = (num_rows, num_experts)
            require(tuple(p_BV.shape) == wanted, f"weights are of shape {tuple(p_BV.shape)}, not {wanted}")
            require(p_BV.dtype == torch.float32, f"weights are {p_BV.dtype}, not torch.float32")
            require(bool((p_BV >= 0).all()), f"a weight is {float(p_BV.min()):.3g}, below zero")
            gap = difference(p_BV.sum(1), torch.ones(num_rows))
            require(not sums_to_one or gap < 1e-5, f"the weights of a row miss a sum of one by {gap:.3g}")
    sums = "sum to one" if sums_to_one else "need not sum to one, as it says"
    return f"weights are not negative and {sums}, over 1, 2 and {NUM_EXPERTS} experts"


def _check_sparsity(subject: Subject) -> str:
    gate = _gate(subject)
    # A gate that gets sparse as it learns is so on rows that lie far apart; a softmax would underflow there.
    p_BV = _weights(gate, rows(NUM_ROWS) * (1000.0 if gate.is_sparse else 1.0))
    has_zeros = bool((p_BV == 0).any())
    require(gate.is_sparse == has_zeros, f"is_sparse is {gate.is_sparse}, and weights are zero: {has_zeros}")
    most = int((p_BV > 0).sum(dim=1).max())
    require(most <= gate.num_used, f"num_used is {gate.num_used}, and a row used {most} experts")
    return (
        f"{'sparse' if gate.is_sparse else 'dense'}, at most {gate.num_used} of {NUM_EXPERTS} experts a row, as it says"
    )


def _check_fused(subject: Subject) -> str:
    """A layer joins the products of neighbouring gates; each must weigh as it does when it is called."""
    for is_training in (True, False):
        gates = [subject.config.build(in_features=NUM_FEATURES, num_experts=4).train(is_training) for _ in range(3)]
        layer = layer_of(gates, num_experts=4, input_of_gate=[0, 0, 1])
        inputs = [rows(NUM_ROWS, seed=1), rows(NUM_ROWS, seed=2)]
        with torch.no_grad():
            torch.manual_seed(2)
            fused_BGV = layer(inputs)[1].weights_BGE
            torch.manual_seed(2)
            called_BGV = torch.stack([gates[0](inputs[0]), gates[1](inputs[0]), gates[2](inputs[1])], dim=1)
        gap = difference(fused_BGV, called_BGV)
        require(gap <= TOLERANCE, f"linear_form() gives other weights than the call, by {gap:.3g}")
    return "the layer's joint product gives the weights of the call, in training and in serving"


def _check_one_row(subject: Subject) -> str:
    gate = _gate(subject)
    x_BD = rows(NUM_ROWS)
    gap = difference(torch.cat([_weights(gate, x_1D) for x_1D in torch.split(x_BD, 1)]), _weights(gate, x_BD))
    require(gap <= TOLERANCE, f"a row alone has other weights than among others, by {gap:.3g}")
    return f"each of {NUM_ROWS} rows has the same weights alone as among the others"


def _check_served(subject: Subject) -> str:
    gate, x = _gate(subject), sided_rows()
    gap = difference(_weights(gate, x), _weights(gate, x.concatenated()))
    require(gap <= TOLERANCE, f"a request's rows have other weights than in training, by {gap:.3g}")
    return "rows that share a request's half have the weights of whole rows"


def _check_precision(subject: Subject) -> str:
    gate, x_BD = _gate(subject), rows(NUM_ROWS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        p_BV = _weights(gate, x_BD)
    gap = difference(p_BV, _weights(gate, x_BD))
    require(gap == 0, f"under bfloat16 the weights change by {gap:.3g}; compute them with autocast off")
    return "weights are the same under bfloat16 autocast: the gate computes in float32"


def _check_gradients(subject: Subject) -> str:
    gate = _gate(subject, num_experts=4, is_training=True)
    x_BD = rows(NUM_ROWS).requires_grad_()
    untaught, leaves = untaught_by(subject.config), {"x": x_BD, **dict(gate.named_parameters())}
    p_BV = gate(x_BD)
    if p_BV.requires_grad:
        p_BV.square().sum().backward()
    moved = {name for name, leaf in leaves.items() if leaf.grad is not None and leaf.grad.any()}
    without = ["the input" if name == "x" else name for name in leaves if name not in moved | untaught]
    require(not without, f"no gradient reaches {', '.join(without)}")
    wrong = ", ".join(sorted(moved & untaught))
    require(not wrong, f"its kind says that no gradient reaches {wrong}, and one does")
    if not moved:
        raise NotApplicable("no gradient of its weights moves anything, as its kind says")
    but = f", but for {', '.join(sorted(untaught))}, as its kind says" if untaught else ""
    return f"a gradient reaches the input and every weight{but}"


def _check_axes(subject: Subject) -> str:
    few, more = _gate(subject, num_experts=4), _gate(subject, num_experts=5)
    grown = {
        (name, axis)
        for name, weight in few.state_dict().items()
        for axis, size in enumerate(weight.shape)
        if size != more.state_dict()[name].shape[axis]
    }
    named = {
        (name, axis)
        for name, of_weight in few.weight_axes().items()
        for axis, labels in enumerate(of_weight)
        if labels is not None and (labels is EXPERTS or labels == of_all_experts(len(labels)))
    }
    for name, axis in sorted(grown - named):
        raise Deviation(f"axis {axis} of {name} grows with the experts, and weight_axes() does not say so")
    for name, axis in sorted(named - grown):
        raise Deviation(f"weight_axes() says that axis {axis} of {name} belongs to the experts, and it does not grow")
    return f"weight_axes() names the {len(named)} axes that belong to experts"


GATE_PROPERTIES = (
    Property("weights are shares of one", _check_shares),
    Property("sparse as it says", _check_sparsity),
    Property("fused = called", _check_fused),
    Property("batch of one row", _check_one_row),
    Property("served = trained", _check_served),
    Property("float32 under autocast", _check_precision),
    Property("gradients reach everything", _check_gradients),
    Property("every axis is named", _check_axes),
    Property("sparse skips work", check_work_of_gate),
    Property("planted tasks are learned", check_planted_tasks),
    Property("equal to a naive loop", check_loop),
)
