"""The order in which the tasks are named does not matter, where weights go by name."""

# B rows, Z logits

import torch
from torch import Tensor, nn

from recmoe.axes import describe
from recmoe.conformance.outcome import NotApplicable, require
from recmoe.conformance.probes import TASKS, difference, inputs_of, model_of, parts, rows
from recmoe.conformance.subject import Subject

TURNED = ("rate", "click", "buy")
TOLERANCE = 1e-5


def check_task_order(subject: Subject) -> str:
    """A model of the same tasks in another order, with the same weights by name, gives the same logits."""
    config = subject.config
    model, turned = model_of(config, TASKS), model_of(config, TURNED, seed=1)
    turned.load_state_dict(_by_name(model, turned))
    x_BD = rows(20)
    with torch.no_grad():
        logits_BZ = model(inputs_of(config, x_BD, TASKS)).logits_BZ
        turned_BZ = turned(inputs_of(config, x_BD, TURNED)).logits_BZ
    columns = parts(config, TASKS).tasks, parts(config, TURNED).tasks
    for task in TASKS:
        before, after = (tasks.columns(task) for tasks in columns)
        gap = difference(turned_BZ[:, after], logits_BZ[:, before])
        require(gap <= TOLERANCE, f"the logit of {task} changes by {gap:.2g} when the tasks stand in another order")
    return "tasks in another order, with the same weights by name, have the same logits"


def _by_name(model: nn.Module, turned: nn.Module) -> dict[str, Tensor]:
    """The state of a model, as one whose parts stand in another order holds it."""
    state = model.state_dict()
    named = {of.name: (state[key], of.axes) for key, of in describe(model).items()}
    result = {}
    for key, described in describe(turned).items():
        if described.name not in named:
            raise NotApplicable(f"the order of the tasks is part of what it is: it holds {described.name}")
        value, axes = named[described.name]
        for axis, (labels, known) in enumerate(zip(described.axes, axes, strict=True)):
            if labels is None or known is None:
                continue
            if set(labels) != set(known):
                raise NotApplicable(f"the order of the tasks is part of what it is: see {described.name}")
            value = value.index_select(axis, torch.tensor([known.index(label) for label in labels]))
        result[key] = value
    return result
