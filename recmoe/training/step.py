"""Stepper: one optimizer step after another, plain or with the next batch's ids already on their way."""

# T tasks

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor, nn

from recmoe.embeddings.logical import find_tables
from recmoe.embeddings.placement import TableOptimizer
from recmoe.embeddings.tables import PlainTables
from recmoe.errors import TrainingError
from recmoe.features.batch import Batch
from recmoe.training.clipping import Clipping
from recmoe.training.optimizers import ScheduleConfig, set_learning_rate

if TYPE_CHECKING:
    from recmoe.embeddings.pipeline import SparsePipeline

_logger = logging.getLogger(__name__)

Pipelining = Literal["auto", "on", "off"]
Losses = Callable[[Batch], tuple[Tensor, Tensor]]
"""From a batch to the loss to minimise, and losses_T."""
Prepare = Callable[[Batch, int], Batch]
"""From a batch and its step to what the model reads; the same for the same."""


@dataclass(frozen=True)
class Update:
    """What surrounds a backward pass: the rates before it; clipping and both optimizers after it."""

    dense_optimizer: torch.optim.Optimizer
    table_optimizer: TableOptimizer
    lr: float
    """Of the dense part, at the top of the schedule."""
    schedule: ScheduleConfig
    clipping: Clipping = field(default_factory=Clipping)

    def set_rates(self, step: int, num_steps: int) -> None:
        """Those of a step, for the dense part and the tables."""
        share = self.schedule.factor(step, num_steps)
        set_learning_rate(self.dense_optimizer, self.lr * share)
        self.table_optimizer.scale_lr(share)

    def zero_grad(self) -> None:
        """Drop the dense gradients; a step drops the tables' own."""
        self.dense_optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Apply the gradients of the last backward."""
        self.clipping.clip()
        self.dense_optimizer.step()
        self.table_optimizer.step()


class Stepper(Protocol):
    """Steps a model through batches; may take some of them before their step."""

    def step(self, batches: Iterator[Batch], *, step: int, num_steps: int) -> Tensor:
        """Step the next batch; losses_T before the step."""
        ...

    def pause(self) -> None:
        """Leave the model to others, such as a validation; batches already taken are kept."""
        ...

    def stop(self) -> None:
        """Leave the model; batches already taken are dropped."""
        ...


class PlainStepper:
    """Forward, backward, update; then the next batch."""

    def __init__(self, *, losses: Losses, prepare: Prepare, update: Update) -> None:
        self._losses = losses
        self._prepare = prepare
        self._update = update

    def step(self, batches: Iterator[Batch], *, step: int, num_steps: int) -> Tensor:
        """Step the next batch; losses_T before the step."""
        batch = self._prepare(next(batches), step)
        self._update.set_rates(step, num_steps)
        self._update.zero_grad()
        loss, losses_T = self._losses(batch)
        torch.autograd.backward(loss)
        self._update.step()
        return losses_T

    def pause(self) -> None:
        """Nothing is under way between steps."""

    def stop(self) -> None:
        """Nothing is under way between steps."""


class PipelinedStepper:
    """While a batch computes, the ids of the next one travel to the ranks that hold their rows.

    After the first step it looks whether every sharded module takes part. If one does not, its ids would travel
    inside the step as ever, only with more work around it: then the loop goes on plainly, and says so.
    """

    def __init__(self, *, pipeline: "SparsePipeline", losses: Losses, prepare: Prepare, update: Update) -> None:
        self._pipeline: SparsePipeline | None = pipeline
        self._plain = PlainStepper(losses=losses, prepare=prepare, update=update)
        self._update = update
        self._is_checked = False
        self._taken: Iterator[Batch] = iter(())

    def step(self, batches: Iterator[Batch], *, step: int, num_steps: int) -> Tensor:
        """Step the next batch; losses_T before the step."""
        if self._pipeline is None:
            return self._plain.step(chain(self._taken, batches), step=step, num_steps=num_steps)
        self._update.set_rates(step, num_steps)
        losses_T = self._pipeline.step(batches, step)
        if not self._is_checked:
            self._check(self._pipeline)
        return losses_T

    def _check(self, pipeline: "SparsePipeline") -> None:
        self._is_checked = True
        left_out = pipeline.left_out()
        if not left_out:
            return
        _logger.warning("%s cannot be pipelined; the loop goes on without pipelining", ", ".join(left_out))
        pipeline.pause()
        self._taken = iter(pipeline.drop())
        self._pipeline = None

    def pause(self) -> None:
        """Leave the model to others, such as a validation; batches already taken are kept."""
        if self._pipeline is not None:
            self._pipeline.pause()

    def stop(self) -> None:
        """Leave the model; batches already taken are dropped."""
        self._taken = iter(())
        if self._pipeline is not None:
            self._pipeline.pause()
            self._pipeline.drop()


def make_stepper(
    model: nn.Module,
    *,
    losses: Losses,
    prepare: Prepare,
    update: Update,
    pipelining: Pipelining,
    device: torch.device,
) -> Stepper:
    """The stepper of a placed model.

    Args:
        losses: forward through the model.
        prepare: what happens to the batch of a step before its ids are looked up.
        pipelining: ``auto`` is on for sharded tables on a GPU.

    Raises:
        TrainingError: pipelining was asked for and the tables are plain ones.
    """
    is_sharded = not isinstance(find_tables(model)[1], PlainTables)
    if pipelining == "on" and not is_sharded:
        raise TrainingError(
            "training.pipeline: on was asked for and the tables are plain ones, whose ids go nowhere; "
            "use auto or off, or tables.backend: torchrec"
        )
    if pipelining == "off" or not is_sharded or (pipelining == "auto" and device.type != "cuda"):
        return PlainStepper(losses=losses, prepare=prepare, update=update)
    from recmoe.embeddings.pipeline import SparsePipeline

    pipeline = SparsePipeline(model, forward=losses, prepare=prepare, optimizer=update, device=device)
    return PipelinedStepper(pipeline=pipeline, losses=losses, prepare=prepare, update=update)
