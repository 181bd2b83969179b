"""Sparse routing skips work: counted operations, not zeros that are multiplied."""

# B rows, G gates, E experts

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from recmoe.conformance.outcome import NotApplicable, require
from recmoe.conformance.probes import NUM_FEATURES, inputs_of, model_of, rows
from recmoe.conformance.stacks import stacks_of
from recmoe.conformance.subject import Subject
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts import MlpExperts
from recmoe.moe.gates import GateConfig

NUM_ROWS = 256
NUM_EXPERTS = 16
SPARSE_GATE = {"kind": "top_k", "k": 1}
SPARSE = 0.9
"""Routing is sparse where at most this share of the pairs of row and expert has a weight."""
ROOM = 1.1
"""What may be computed, by what must be."""


def check_work_of_gate(subject: Subject) -> str:
    """Of 16 experts, a sparse gate has only those computed that it chose."""
    torch.manual_seed(0)
    gate = subject.config.build(in_features=NUM_FEATURES, num_experts=NUM_EXPERTS).eval()
    if not gate.is_sparse:
        raise NotApplicable("it says of itself that it is not sparse")
    layer = layer_of([gate], num_experts=NUM_EXPERTS, input_of_gate=[0]).eval()
    return _check(layer, lambda: [layer([rows(NUM_ROWS)])[1].weights_BGE])


def layer_of(gates: Sequence[Any], *, num_experts: int, input_of_gate: Sequence[int]) -> ExpertLayer:
    """Gates over small experts of the first input, which all of them see."""
    reads = {f"shared.{expert}": 0 for expert in range(num_experts)}
    return ExpertLayer(
        experts=MlpExperts(reads=reads, in_features=NUM_FEATURES, hidden=(32, 16)),
        gates=gates,
        gate_names=[f"task{gate}" for gate in range(len(gates))],
        input_of_gate=input_of_gate,
        mask_GE=[[True] * num_experts] * len(gates),
    )


def check_work_of_model(subject: Subject) -> str:
    """Experts that no gate chose for a row are not computed for it; what takes any gate is given a sparse one."""
    config = subject.config
    if "gate" in type(config).model_fields:
        config = config.model_copy(update={"gate": TypeAdapter(GateConfig).validate_python(SPARSE_GATE)})
    model = model_of(config)
    inputs = inputs_of(config, rows(NUM_ROWS))
    return _check(model, lambda: [use.weights_BGE for use in model(inputs).routing])


def _check(module: nn.Module, run: Callable[[], Sequence[Tensor]]) -> str:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        weights = run()
    stacks = stacks_of(module)
    routed = [(stack, p_BGE) for stack, p_BGE in zip(stacks, weights, strict=False) if _routes(stack, p_BGE)]
    always = {id(layer.experts): _around_E(layer) for layer in module.modules() if isinstance(layer, ExpertLayer)}
    shares = [
        float(((p_BGE != 0).any(dim=1) | always.get(id(stack), torch.tensor(False))).float().mean())
        for stack, p_BGE in routed
    ]
    if not shares or min(shares) > SPARSE:
        raise NotApplicable("its routing is not sparse: most experts have a weight in most rows")
    of_experts = [_operations(stack) for stack, _ in routed]
    dense = _operations(module)
    # What the experts would cost on all rows, replaced by what they cost on those that chose them.
    needed = dense - sum(of_experts) + sum(share * cost for share, cost in zip(shares, of_experts, strict=True))
    found = counter.get_total_flops()
    share = sum(shares) / len(shares)
    require(
        found <= ROOM * needed,
        f"{share:.0%} of the pairs of row and expert have a weight, yet {found / NUM_ROWS:,.0f} operations a row are "
        f"computed where {needed / NUM_ROWS:,.0f} would do ({dense / NUM_ROWS:,.0f} for all pairs)",
    )
    return (
        f"{found / NUM_ROWS:,.0f} operations a row, {dense / NUM_ROWS:,.0f} if all experts were computed; "
        f"{share:.0%} of the pairs of row and expert have a weight"
    )


def _routes(stack: Any, p_BGE: Tensor) -> bool:
    return bool(p_BGE.shape[2] == stack.num_experts)


def _around_E(layer: ExpertLayer) -> Tensor:
    """Which experts every row uses, for they are mixed around the gates."""
    if layer.around is None:
        return torch.zeros(len(layer.expert_names), dtype=torch.bool)
    added_GE: Tensor = layer.around()
    return (added_GE != 0).any(dim=0)


def _operations(module: nn.Module) -> int:
    """Of a product of every row with every matrix, a multiplication and an addition counted as two."""
    matrices = (weight for name, weight in module.named_parameters() if weight.dim() > 1 and "bias" not in name)
    return sum(2 * NUM_ROWS * weight.numel() for weight in matrices)
