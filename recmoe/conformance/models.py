"""What must hold for the model of every architecture, and of a mixture on every trunk."""

# B rows, T tasks, G gates, E experts, Z logits

import torch

from recmoe.architectures.seam import Targets
from recmoe.axes import describe
from recmoe.conformance.alike import check_experts_differ
from recmoe.conformance.flow import check_flow
from recmoe.conformance.loop import check_loop
from recmoe.conformance.outcome import Deviation, NotApplicable, Property, require
from recmoe.conformance.planted import check_planted_tasks
from recmoe.conformance.probes import TASKS, difference, inputs_of, model_of, rows, sided_rows
from recmoe.conformance.subject import Subject
from recmoe.conformance.task_order import check_task_order
from recmoe.conformance.work import check_work_of_model

TOLERANCE = 1e-5
NUM_ROWS = 20


def _check_shape(subject: Subject) -> str:
    model = model_of(subject.config)
    for num_rows in (1, 5):
        shape = tuple(model(inputs_of(subject.config, rows(num_rows))).logits_BZ.shape)
        require(shape == (num_rows, len(TASKS)), f"{num_rows} rows give logits of shape {shape}, not one per task")
    return f"{len(TASKS)} tasks have a logit each, for one row and for five"


def _check_shares(subject: Subject) -> str:
    model = model_of(subject.config)
    routing = model(inputs_of(subject.config, rows(NUM_ROWS))).routing
    if not routing:
        raise NotApplicable("no gate chooses between experts")
    sums_to_one = all(getattr(module, "sums_to_one", True) for module in model.modules())
    for level, use in enumerate(routing):
        require(use.level == level, f"use {level} says that it is of level {use.level}")
        require(len(set(use.experts)) == len(use.experts), f"level {level} has two experts of one name")
        wanted = (NUM_ROWS, len(use.gates), len(use.experts))
        shape = tuple(use.weights_BGE.shape)
        require(shape == wanted, f"weights of level {level} are of shape {shape}, not {wanted}")
        require(bool((use.weights_BGE >= 0).all()), f"a weight of level {level} is below zero")
        gap = difference(use.weights_BGE.sum(2), torch.ones(wanted[:2]))
        require(not sums_to_one or gap < 1e-5, f"the weights of a row on level {level} miss a sum of one by {gap:.3g}")
        if use.visible_GE is not None:
            hidden = use.weights_BGE[:, ~use.visible_GE]
            require(not hidden.any(), f"a gate of level {level} weighs an expert that it does not see")
    gates = sum(len(use.gates) for use in routing)
    sums = "sum to one" if sums_to_one else "need not sum to one"
    return f"the weights of {gates} gates on {len(routing)} levels are not negative and {sums} over what each sees"


def _check_one_row(subject: Subject) -> str:
    model, x_BD = model_of(subject.config), rows(NUM_ROWS)
    alone = [model(inputs_of(subject.config, x_1D)).logits_BZ for x_1D in torch.split(x_BD, 1)]
    gap = difference(torch.cat(alone), model(inputs_of(subject.config, x_BD)).logits_BZ)
    require(gap <= TOLERANCE, f"a row alone has other logits than among others, by {gap:.3g}")
    return f"each of {NUM_ROWS} rows has the same logits alone as among the others"


def _check_served(subject: Subject) -> str:
    model = model_of(subject.config)
    for num_requests in (1, 3):
        x = sided_rows(NUM_ROWS, num_requests=num_requests)
        served = model(inputs_of(subject.config, x)).logits_BZ
        gap = difference(served, model(inputs_of(subject.config, x.concatenated())).logits_BZ)
        require(
            gap <= TOLERANCE, f"the rows of {num_requests} requests have other logits than in training, by {gap:.3g}"
        )
    return "rows that share a request's half have the logits of whole rows, for one request and for three"


def _check_start(subject: Subject) -> str:
    model = model_of(subject.config)
    model.begin_at_zero()  # type: ignore[operator]
    logits_BZ = model(inputs_of(subject.config, rows(NUM_ROWS))).logits_BZ.detach()
    require(not logits_BZ.any(), f"after begin_at_zero() a logit is {float(logits_BZ.abs().max()):.3g}")
    return "begin_at_zero() makes every logit 0"


def _check_losses(subject: Subject) -> str:
    model = model_of(subject.config).train()
    weights: dict[str, float] = dict(model.loss_weights)  # type: ignore[arg-type]
    if not weights:
        raise NotApplicable("it has no losses of its own")
    x_BD = rows(50)
    drawn_BT = rows(50, seed=2)[:, : len(TASKS)]
    targets = Targets((drawn_BT > 0).float(), torch.ones_like(drawn_BT), drawn_BT.abs())
    losses = model.losses(model(inputs_of(subject.config, x_BD)), targets)  # type: ignore[operator]
    require(losses.keys() == weights.keys(), f"losses() gives {sorted(losses)}, loss_weights names {sorted(weights)}")
    for name, loss in losses.items():
        is_usable = loss.dim() == 0 and bool(loss.isfinite()) and loss.requires_grad
        require(is_usable, f"{name} is no finite scalar with a gradient")
    return f"{', '.join(losses)}: finite scalars with a gradient, as loss_weights names them"


def _check_gradients(subject: Subject) -> str:
    model = model_of(subject.config).train()
    outputs = model(inputs_of(subject.config, rows(200)))
    sum([outputs.logits_BZ.square().sum(), *(value.square().sum() for value in outputs.extra.values())]).backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    require(not without, f"no gradient reaches {', '.join(without)}")
    return "a gradient reaches every weight"


def _check_axes(subject: Subject) -> str:
    model = model_of(subject.config)
    try:
        described = describe(model)
    except AssertionError as error:
        raise Deviation(str(error)) from error
    silent = model.state_dict().keys() - described.keys()
    require(not silent, f"no one says what {', '.join(sorted(silent))} belongs to")
    later = {one.name for one in described.values()}
    lost = {one.name for one in describe(model_of(subject.config, TASKS[1:])).values()} - later
    require(not lost, f"with a task in front, these weights change their names: {', '.join(sorted(lost))}")
    return f"{len(described)} weights say what they belong to, and keep their names when a task is put in front"


ARCHITECTURE_PROPERTIES = (
    Property("one logit per task", _check_shape),
    Property("weights are shares of one", _check_shares),
    Property("batch of one row", _check_one_row),
    Property("served = trained", _check_served),
    Property("order of tasks", check_task_order),
    Property("begins at zero", _check_start),
    Property("own losses are as named", _check_losses),
    Property("gradients reach everything", _check_gradients),
    Property("gradients flow as declared", check_flow),
    Property("experts differ at the start", check_experts_differ),
    Property("every axis is named", _check_axes),
    Property("sparse skips work", check_work_of_model),
    Property("planted tasks are learned", check_planted_tasks),
    Property("equal to a naive loop", check_loop),
)

OF_EXPERTS = (_check_shares, check_flow, check_experts_differ, check_work_of_model)
"""What says nothing of a trunk, but of the mixture that stands on it."""
TRUNK_PROPERTIES = tuple(one for one in ARCHITECTURE_PROPERTIES if one.check not in OF_EXPERTS)
