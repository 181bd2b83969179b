"""equal_to_loop(): a module equals a naive loop in its outputs and in all gradients, row by row in float64.

A loop is a function of the module and one row; it reads the weights of the module and nothing else of it:

    of a gate           loop(gate, x_D) → p_V
    of experts          loop(experts, expert, x_D) → y_H of the expert with that index
    of an architecture  loop(architecture, x_D) → one h_H per task; of a kind with ``assemble`` alone, the model's
                        logits_Z
    of a trunk          loop(trunk, features by the name of a group) → x_D'
"""

# B rows, D input width, V visible experts, H width of a representation, Z logits

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from recmoe.conformance.outcome import NotApplicable, require
from recmoe.conformance.probes import NUM_FEATURES, TASKS, difference, inputs_of, model_of, parts
from recmoe.conformance.subject import Role, Subject
from recmoe.moe.linear import rows_of

TOLERANCE = 1e-10
NUM_EXPERTS = 4
WIDTHS = (5, 4)
ROWS = (1, 4)


def equal_to_loop(
    module: nn.Module,
    called: Callable[[Tensor], Tensor],
    loop: Callable[[Tensor], Tensor],
    *,
    num_rows: int,
    in_features: int = NUM_FEATURES,
) -> None:
    """Compare outputs, and the gradient of every parameter and of the input.

    Args:
        module: whose parameters are compared, in float64.
        called: x_BD → outputs, rows first.
        loop: x_D → outputs of one row.

    Raises:
        Deviation: what differs, and by how much.
    """
    draws = torch.Generator().manual_seed(num_rows)
    x_BD = torch.randn(num_rows, in_features, dtype=torch.float64, generator=draws, requires_grad=True)
    found, expected = called(x_BD), torch.stack([loop(x_D) for x_D in x_BD])
    gap = difference(found, expected)
    require(gap <= TOLERANCE, f"{_of(num_rows)}, outputs differ from the loop's by {gap:.2g}")
    upstream = torch.randn(found.shape, dtype=torch.float64, generator=draws)
    leaves = {"the input": x_BD, **dict(module.named_parameters())}
    # An expert that a batch did not choose has no gradient in the loop, and a zero one in the module.
    gradients, wanted = (
        torch.autograd.grad((output * upstream).sum(), list(leaves.values()), allow_unused=True, materialize_grads=True)
        for output in (found, expected)
    )
    require(any(bool(gradient.any()) for gradient in wanted), "no gradient passes through the loop: detach nothing")
    for name, of_module, of_loop in zip(leaves, gradients, wanted, strict=True):
        gap = difference(of_module, of_loop)
        require(gap <= TOLERANCE, f"{_of(num_rows)}, the gradient of {name} differs from the loop's by {gap:.2g}")


def check_loop(subject: Subject) -> str:
    """The subject equals the loop that was given with it."""
    if subject.loop is None:
        raise NotApplicable("no loop was given; --loop MODULE:FUNCTION names one")
    torch.manual_seed(0)
    compare = COMPARED[subject.role]
    for num_rows in ROWS:
        compare(subject.config, subject.loop, num_rows)
    return f"outputs and all gradients equal the loop's, for {' and '.join(map(str, ROWS))} rows, within {TOLERANCE:g}"


def _compare_gate(config: Any, loop: Callable[..., Any], num_rows: int) -> None:
    gate = config.build(in_features=NUM_FEATURES, num_experts=NUM_EXPERTS).double().eval()
    equal_to_loop(gate, gate, lambda x_D: loop(gate, x_D), num_rows=num_rows)


def _compare_experts(config: Any, loop: Callable[..., Any], num_rows: int) -> None:
    reads = {f"shared.{expert}": 0 for expert in range(NUM_EXPERTS)}
    experts = config.build(reads=reads, in_features=NUM_FEATURES, hidden=WIDTHS, dropout=0.0, form="auto")
    experts = experts.double().eval()
    equal_to_loop(
        experts,
        lambda x_BD: torch.stack(experts([x_BD]), dim=1),
        lambda x_D: torch.stack([loop(experts, expert, x_D) for expert in range(NUM_EXPERTS)]),
        num_rows=num_rows,
    )


def _compare_architecture(config: Any, loop: Callable[..., Any], num_rows: int) -> None:
    if not hasattr(config, "build"):
        model = model_of(config).double()
        equal_to_loop(
            model,
            lambda x_BD: model(inputs_of(config, x_BD)).logits_BZ,
            lambda x_D: loop(model, x_D),
            num_rows=num_rows,
        )
        return
    names = parts(config).tasks.tower_names
    assert names == TASKS, "every probed task has a tower"
    architecture = config.build(in_features=NUM_FEATURES, task_names=names).double().eval()
    equal_to_loop(
        architecture,
        lambda x_BD: torch.stack(architecture(x_BD)[0], dim=1),
        lambda x_D: torch.stack(list(loop(architecture, x_D))),
        num_rows=num_rows,
    )


def _compare_trunk(config: Any, loop: Callable[..., Any], num_rows: int) -> None:
    trunk = model_of(config).get_submodule("trunk").double()
    equal_to_loop(
        trunk,
        lambda x_BD: trunk(*inputs_of(config, x_BD)).x_BD,
        lambda x_D: loop(
            trunk, {name: rows_of(group)[0] for name, group in inputs_of(config, x_D[None]).groups.items()}
        ),
        num_rows=num_rows,
    )


COMPARED: dict[Role, Callable[[Any, Callable[..., Any], int], None]] = {
    "gate": _compare_gate,
    "expert": _compare_experts,
    "architecture": _compare_architecture,
    "trunk": _compare_trunk,
}


def _of(num_rows: int) -> str:
    return "in a batch of one row" if num_rows == 1 else f"in a batch of {num_rows} rows"
