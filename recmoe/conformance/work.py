"""Sparse routing skips work: counted operations, not zeros that are multiplied."""

# B rows, G gates, E experts

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from recmoe.architectures.seam import Inputs
from recmoe.conformance.outcome import NotApplicable, require
from recmoe.conformance.probes import NUM_FEATURES, inputs_of, model_of, rows
from recmoe.conformance.stacks import stacks_of
from recmoe.conformance.subject import Subject
from recmoe.moe.balance.statistics import shares_of
from recmoe.moe.expert_layer import ExpertLayer
from recmoe.moe.experts import MlpExperts
from recmoe.moe.gate_use import GateUse
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
    work = _check(model, lambda: [use.weights_BGE for use in model(inputs).routing])
    return "; ".join([work, *_check_bounds(model_of(subject.config), inputs)])


def _check_bounds(model: nn.Module, inputs: Inputs) -> list[str]:
    """Of gates that choose together: no row uses more experts than they say, as it trains and as it is served."""
    layers = [layer for layer in model.modules() if isinstance(layer, ExpertLayer)]
    sentences = []
    for is_training in (True, False):
        with torch.no_grad():
            routing = model.train(is_training)(inputs).routing
        for layer, use in zip(layers, routing, strict=False):
            if layer.choice is None:
                continue
            bound, active = min(layer.num_pairs, len(use.experts)), active_experts(use)
            most = int(active.together_B.max())
            require(most <= bound, f"a row uses {most} experts, and gates that choose together say {bound} at most")
            sentences += [] if is_training else [active.sentence(bound)]
    return sentences


class ActiveExperts(NamedTuple):
    """How many experts are computed for each row, for all gates of a level together."""

    together_B: Tensor
    """As the gates chose."""
    alone_B: Tensor
    """Had each gate taken as many by itself, those that it would give most."""

    def sentence(self, bound: int) -> str:
        """Means and the most of a row, next to a bound."""
        together_B, alone_B = self.together_B.float(), self.alone_B.float()
        return (
            f"a row uses {together_B.mean():.2f} experts on average and {together_B.max():.0f} at most, by a bound of "
            f"{bound}; if each gate took as many by itself, {alone_B.mean():.2f} and {alone_B.max():.0f}"
        )


def active_experts(use: GateUse) -> ActiveExperts:
    """Of gates that see the same experts.

    Args:
        use: of some rows, at least one.
    """
    is_used_BGE = use.weights_BGE != 0
    num_used = int(is_used_BGE.sum(dim=2).max())
    p_BGE = torch.stack([shares_of(gate) for gate in use.by_gate], dim=1)
    is_best_BGE = torch.zeros_like(is_used_BGE).scatter(2, p_BGE.topk(num_used, dim=2).indices, value=True)
    return ActiveExperts(*(is_any_BGE.any(dim=1).sum(dim=1) for is_any_BGE in (is_used_BGE, is_best_BGE)))


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
