"""Two tasks with a planted answer, which any mixture must learn."""

# B rows, Z = 2 logits

from typing import Any

import torch
from torch import Tensor

from recmoe.conformance.outcome import Deviation
from recmoe.conformance.probes import SMALL, inputs_of, model_of, rows
from recmoe.conformance.subject import Subject
from recmoe.model import ModelConfig

TASKS = ("left", "right")
NUM_ROWS = 512
MAX_STEPS = 300
CHECKED_EVERY = 20
LEARNING_RATE = 0.005
UNEXPLAINED = 0.3
"""Share of the variance that may be left on new rows."""


def check_planted_tasks(subject: Subject) -> str:
    """|x0| and |x1| + |x2|, learned by the two logits, hold on new rows."""
    config = _as_architecture(subject)
    model = model_of(config, TASKS).train()
    train_B, test_B = inputs_of(config, rows(NUM_ROWS, seed=1), TASKS), inputs_of(config, rows(NUM_ROWS, seed=2), TASKS)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    unexplained_Z = torch.ones(len(TASKS))
    # Some gates draw while they train.
    torch.manual_seed(0)
    for step in range(1, MAX_STEPS + 1):
        optimizer.zero_grad()
        torch.autograd.backward(_unexplained(model(train_B).logits_BZ, rows(NUM_ROWS, seed=1)).sum())
        optimizer.step()
        if step % CHECKED_EVERY == 0:
            with torch.no_grad():
                unexplained_Z = _unexplained(model.eval()(test_B).logits_BZ, rows(NUM_ROWS, seed=2))
            if unexplained_Z.max() < UNEXPLAINED:
                return f"after {step} steps, {_listed(unexplained_Z)} of the variance is left on new rows"
            model.train()
    raise Deviation(f"after {MAX_STEPS} steps, {_listed(unexplained_Z)} of the variance is left on new rows")


def _as_architecture(subject: Subject) -> Any:
    """A gate and experts are looked at inside the default architecture, a plain mixture."""
    if subject.role not in ("gate", "expert"):
        return subject.config
    return ModelConfig().architecture.model_copy(update={**SMALL, subject.role: subject.config})


def _unexplained(logits_BZ: Tensor, x_BD: Tensor) -> Tensor:
    """Mean squared error by the variance of the answer, of each task."""
    answers_BZ = torch.stack([x_BD[:, 0].abs(), x_BD[:, 1].abs() + x_BD[:, 2].abs()], dim=1)
    return (logits_BZ - answers_BZ).square().mean(dim=0) / answers_BZ.var(dim=0)


def _listed(unexplained_Z: Tensor) -> str:
    return " and ".join(f"{share:.0%}" for share in unexplained_Z.tolist())
