"""What must hold for every kind of expert."""

# B rows, E experts, H width of an expert's output

from typing import Any

import torch
from torch import Tensor

from recmoe.axes import describe
from recmoe.conformance.alike import check_stack_differs
from recmoe.conformance.loop import check_loop
from recmoe.conformance.outcome import Property, require
from recmoe.conformance.planted import check_planted_tasks
from recmoe.conformance.probes import NUM_FEATURES, difference, rows, sided_rows
from recmoe.conformance.subject import Subject

READS = {"shared.0": 0, "shared.1": 0, "shared.2": 1, "shared.3": 0, "shared.4": 1, "shared.5": 1}
WIDTHS = (6, 4)
TOLERANCE = 1e-5


def _experts(subject: Subject) -> Any:
    torch.manual_seed(0)
    config = subject.config
    return config.build(reads=READS, in_features=NUM_FEATURES, hidden=WIDTHS, dropout=0.0, form="auto").eval()


def _inputs(num_rows: int = 5) -> list[Tensor]:
    return [rows(num_rows, seed=1), rows(num_rows, seed=2)]


def _check_shape(subject: Subject) -> str:
    experts = _experts(subject)
    require(tuple(experts.names) == tuple(READS), f"names are {experts.names}, not those it was given")
    require(tuple(experts.input_of_expert) == tuple(READS.values()), "input_of_expert is not what it was given")
    for num_rows in (0, 1, 5):
        shapes = {tuple(y_BH.shape) for y_BH in experts(_inputs(num_rows))}
        require(shapes == {(num_rows, WIDTHS[-1])}, f"outputs of {num_rows} rows are of shapes {sorted(shapes)}")
    return f"no, one and five rows give outputs of width {WIDTHS[-1]} for each of {len(READS)} experts"


def _check_reads(subject: Subject) -> str:
    experts = _experts(subject)
    first, second = _inputs()
    before, after = experts([first, second]), experts([first, second + 1])
    for name, old, new in zip(READS, before, after, strict=True):
        if READS[name] == 0:
            require(torch.equal(old, new), f"{name} reads an input that is not its own")
    require(
        any(not torch.equal(old, new) for old, new in zip(before, after, strict=True)),
        "no expert reads the second input",
    )
    return "an expert depends on its own input alone"


def _check_forms(subject: Subject) -> str:
    experts, inputs = _experts(subject), _inputs()
    expected = experts(inputs)
    chosen = [[0, 3], [], [1], [4, 2], [0, 1, 2, 3, 4], [2]]
    some = experts.each([inputs[read][of] for read, of in zip(READS.values(), chosen, strict=True)])
    gap = max(difference(y, all_[of]) for y, all_, of in zip(some, expected, chosen, strict=True))
    require(gap <= TOLERANCE, f"each() gives other outputs than the call, by {gap:.3g}")
    gap = difference(experts.batched(inputs), torch.stack(list(expected)))
    require(gap <= TOLERANCE, f"batched() gives other outputs than the call, by {gap:.3g}")
    return "each() and batched() give what the call gives"


def _check_one_row(subject: Subject) -> str:
    experts, inputs = _experts(subject), _inputs(20)
    together = torch.stack(list(experts(inputs)))
    alone = [
        torch.stack(list(experts(list(pair)))) for pair in zip(*(torch.split(x_BD, 1) for x_BD in inputs), strict=True)
    ]
    gap = difference(torch.cat(alone, dim=1), together)
    require(gap <= TOLERANCE, f"a row alone has another output than among others, by {gap:.3g}")
    return "each of 20 rows has the same outputs alone as among the others"


def _check_served(subject: Subject) -> str:
    experts, sided = _experts(subject), [sided_rows(), sided_rows()]
    pairs = zip(experts(sided), experts([x.concatenated() for x in sided]), strict=True)
    gap = max(difference(one, other) for one, other in pairs)
    require(gap <= TOLERANCE, f"a request's rows have other outputs than in training, by {gap:.3g}")
    return "rows that share a request's half have the outputs of whole rows"


def _check_gradients(subject: Subject) -> str:
    experts = _experts(subject)
    inputs = [x_BD.requires_grad_() for x_BD in _inputs(50)]
    torch.autograd.backward(torch.stack(list(experts(inputs))).square().sum())
    require(all(x.grad is not None and bool(x.grad.any()) for x in inputs), "no gradient reaches an input")
    without = [name for name, weight in experts.named_parameters() if weight.grad is None or not weight.grad.any()]
    require(not without, f"no gradient reaches {', '.join(without)}")
    return "a gradient reaches the inputs and every weight"


def _check_axes(subject: Subject) -> str:
    experts = _experts(subject)
    described = describe(experts)
    for key in experts.state_dict():
        of = described[key]
        is_owned = "[shared." in of.name or any(label in READS for labels in of.axes for label in labels or ())
        require(is_owned, f"no axis of {key} is an expert, and no part that holds it is one")
    return f"each of {len(described)} weights says which expert it belongs to"


EXPERT_PROPERTIES = (
    Property("one output per expert", _check_shape),
    Property("an expert reads its own input", _check_reads),
    Property("all forms = called", _check_forms),
    Property("batch of one row", _check_one_row),
    Property("served = trained", _check_served),
    Property("gradients reach everything", _check_gradients),
    Property("every axis is named", _check_axes),
    Property("experts differ at the start", lambda subject: check_stack_differs([_experts(subject)])),
    Property("planted tasks are learned", check_planted_tasks),
    Property("equal to a naive loop", check_loop),
)
