"""train(): step the model through the log, validate, checkpoint, stop in time."""

# T tasks

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from recmoe.config import Config
from recmoe.data.loader import BatchLoader
from recmoe.data.order import Cursor
from recmoe.data.parquet import ParquetStream
from recmoe.embeddings.placement import TableOptimizer
from recmoe.errors import TrainingError
from recmoe.features.batch import Batch
from recmoe.products import Precision, autocast, fast_products
from recmoe.training.clipping import ClipNorm, Clipping, make_clipping
from recmoe.training.divided_experts import ExpertPlacement
from recmoe.training.early_stopping import EarlyStoppingConfig, Validation
from recmoe.training.optimizers import AdamWConfig, ConstantSchedule, ScheduleConfig
from recmoe.training.position import Position
from recmoe.training.runtime import Runtime
from recmoe.training.step import Pipelining, Stepper, Update, make_stepper
from recmoe.training.stop import StopSignal

_logger = logging.getLogger(__name__)

LOG_EVERY = 10
"""Steps between looks at the losses; each look waits for the device."""


class TrainingConfig(Config):
    """How the model is trained."""

    epochs: PositiveInt = 1
    """Passes over the training split."""
    max_steps: PositiveInt | None = None
    """Optimizer steps at most, whatever the epochs."""
    batch_size: PositiveInt = 4096
    """Rows per step and rank."""
    evaluation_batch_size: PositiveInt = 16384
    """Rows per forward pass of an evaluation and rank."""
    dense_optimizer: AdamWConfig = AdamWConfig()
    """Optimizer of everything but the tables."""
    schedule: ScheduleConfig = ConstantSchedule()
    """Share of the learning rate per step, for the dense part and the tables."""
    clip_norm: ClipNorm | None = 10.0
    """Largest norm of the dense gradient; or one for each part, such as ``{gates: 1, experts: 5}``."""
    precision: Precision = "auto"
    """Matrix products in training: bf16 where the device has it, or fp32. Evaluation and serving run in fp32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model is trained."""
    experts: ExpertPlacement = "replicated"
    """Whether every worker holds all experts, or each holds some of every layer, and rows travel to them."""
    pipeline: Pipelining = "auto"
    """Whether the ids of the next batch travel to their tables while this one computes; auto does so on a GPU."""
    evaluate_every: PositiveInt | None = None
    """Steps between validations; by default at the end of every epoch."""
    early_stopping: EarlyStoppingConfig | None = None
    """When to stop before the last epoch; without it the last checkpoint is the result."""
    checkpoint_every: PositiveInt = 500
    """Steps between checkpoints."""
    keep_checkpoints: PositiveInt = 2
    """Newest checkpoints kept, beside the best."""
    async_checkpoints: bool = True
    """Write checkpoints beside the training, from a copy in host memory as large as a worker's part of them."""
    timeout_s: PositiveFloat = 1800.0
    """Seconds a collective may take before the run is stopped."""


@dataclass(frozen=True)
class TrainResult:
    """What a finished or interrupted run has to say."""

    position: Position
    is_interrupted: bool


@dataclass
class Trainer:
    """Everything a run needs; ``train`` moves it from one position to the end.

    ``validate`` returns the value of the stopping metric; ``save`` commits a checkpoint. Both are collective.
    """

    model: nn.Module
    dense_optimizer: torch.optim.Optimizer
    table_optimizer: TableOptimizer
    stream: ParquetStream
    loader: BatchLoader
    validate: Callable[[Position], float | None]
    validation: Validation | None
    save: Callable[[Position], None]
    log: Callable[[int, Mapping[str, float]], None]
    config: TrainingConfig
    precision: Literal["fp32", "bf16"]
    runtime: Runtime
    loss_names: Sequence[str]
    """Of the tasks, then of the model itself, then of what balances its gates."""
    stop: StopSignal = field(default_factory=StopSignal)
    prepare: Callable[[Batch, int], Batch] = lambda batch, _: batch
    """From the batch of a step to what its model reads."""
    curves: Callable[[float], Mapping[str, float]] = lambda _: {}
    """What the model logs besides; given the seconds of the steps since the last call."""
    watch: Callable[[int], None] = lambda _: None
    """Called before losses are checked, with the step; collective."""
    _begin: Position = field(init=False, repr=False)
    _curves_s: float = field(init=False, repr=False)
    """Training time of the position at which curves were logged last."""
    _clipping: Clipping = field(init=False, repr=False)
    _stepper: Stepper = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._clipping = make_clipping(self.config.clip_norm, model=self.model, optimizer=self.dense_optimizer)
        update = Update(
            dense_optimizer=self.dense_optimizer,
            table_optimizer=self.table_optimizer,
            lr=self.config.dense_optimizer.lr,
            schedule=self.config.schedule,
            clipping=self._clipping,
        )
        self._stepper = make_stepper(
            self.model,
            losses=self._losses,
            prepare=self.prepare,
            update=update,
            pipelining=self.config.pipeline,
            device=self.runtime.device,
        )

    def train(self, position: Position, *, num_steps: int) -> TrainResult:
        """Step until the epochs are over, ``num_steps`` are done, or the metric stops getting better."""
        is_interrupted = False
        saved_step = position.step
        self._begin, self._curves_s = position, position.train_s
        while position.cursor.epoch < self.config.epochs and position.step < num_steps and not is_interrupted:
            if self._is_out_of_patience(position):
                break
            position, saved_step, is_interrupted = self._epoch(position, num_steps=num_steps, saved_step=saved_step)
        if saved_step != position.step:
            self.save(position)
        return TrainResult(position=position, is_interrupted=is_interrupted)

    def _epoch(self, position: Position, *, num_steps: int, saved_step: int) -> tuple[Position, int, bool]:
        """The rest of an epoch; ends early at the last step, out of patience, or when told to stop."""
        world = {"world_size": self.runtime.world_size, "batch_size": self.config.batch_size}
        first = position
        last_step = min(num_steps, first.step + self.stream.num_steps(first.cursor, **world))
        losses_T = torch.tensor(first.sums_of(len(self.loss_names)), device=self.runtime.device)
        num_summed = first.num_summed
        loaded = self.loader.epoch(first.cursor)
        batches = islice(loaded, last_step - first.step)
        try:
            while position.step < last_step:
                position, step_losses_T = self._timed_step(batches, position, num_steps)
                losses_T += step_losses_T
                num_summed += 1
                step = position.step
                is_epoch_end = step == last_step
                must_log = step % LOG_EVERY == 0 or is_epoch_end
                must_validate = self._must_validate(step, is_epoch_end)
                must_save = step % self.config.checkpoint_every == 0
                # Asking the peers waits for them; without any it costs nothing.
                is_told = (must_log or self.runtime.world_size == 1) and self.runtime.any(self.stop.is_requested)
                if not (must_log or must_validate or must_save or is_told):
                    continue
                self.watch(step)
                self._check_losses(step, losses_T)
                if must_log:
                    self._log(position, losses_T / num_summed)
                    losses_T = torch.zeros_like(losses_T)
                    num_summed = 0
                position = replace(
                    position,
                    cursor=self._cursor(first, step, is_epoch_end and step < num_steps),
                    loss_sums=tuple(losses_T.tolist()),
                    num_summed=num_summed,
                )
                position, is_best = self._validate(position) if must_validate else (position, False)
                if must_save or is_best or is_told:
                    self.save(position)
                    saved_step = step
                if is_told or self._is_out_of_patience(position):
                    return position, saved_step, is_told
        finally:
            self._stepper.stop()
            loaded.close()
        if position.step == first.step:
            # What is left of the epoch is less than one step.
            position = replace(position, cursor=self.stream.start(position.cursor.epoch + 1))
        return position, saved_step, False

    def _timed_step(self, batches: Iterator[Batch], position: Position, num_steps: int) -> tuple[Position, Tensor]:
        """One step with its batch; the position after it, its cursor left behind, and losses_T."""
        started_s, waited_s = time.perf_counter(), self.loader.wait_s
        with fast_products(self.runtime.device):
            losses_T = self._stepper.step(batches, step=position.step, num_steps=num_steps)
        moved = replace(
            position,
            step=position.step + 1,
            num_samples=position.num_samples + self.config.batch_size * self.runtime.world_size,
            train_s=position.train_s + time.perf_counter() - started_s,
            wait_s=position.wait_s + self.loader.wait_s - waited_s,
        )
        return moved, losses_T

    def _cursor(self, first: Position, step: int, is_epoch_end: bool) -> Cursor:
        if is_epoch_end:
            return self.stream.start(first.cursor.epoch + 1)
        return self.stream.advance(
            first.cursor,
            num_steps=step - first.step,
            world_size=self.runtime.world_size,
            batch_size=self.config.batch_size,
        )

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss to minimise, and losses_T."""
        with autocast(self.precision, self.runtime.device):
            return self.model(batch)  # type: ignore[no-any-return]

    def _check_losses(self, step: int, losses_T: Tensor) -> None:
        losses = zip(self.loss_names, losses_T.tolist(), strict=True)
        broken = [name for name, loss in losses if not math.isfinite(loss)]
        if broken:
            raise TrainingError(
                f"step {step}: the loss of {', '.join(broken)} is not finite; lower training.dense_optimizer.lr or "
                "tables.optimizer.lr, set training.clip_norm, or look for extreme values with `recmoe data check`"
            )

    def _log(self, position: Position, losses_T: Tensor) -> None:
        """Losses, and the speed of this process, whatever others did before it on other machines."""
        since = replace(
            position,
            num_samples=position.num_samples - self._begin.num_samples,
            train_s=position.train_s - self._begin.train_s,
            wait_s=position.wait_s - self._begin.wait_s,
        )
        values = {f"train/{name}/loss": loss for name, loss in zip(self.loss_names, losses_T.tolist(), strict=True)}
        values |= {
            "train/samples_per_s": since.samples_per_s,
            "train/data_wait_share": since.wait_share,
            "train/lr": self.dense_optimizer.param_groups[0]["lr"],
            **self._clipping.curves(),
            **self.curves(position.train_s - self._curves_s),
        }
        self._curves_s = position.train_s
        self.log(position.step, values)

    def _must_validate(self, step: int, is_epoch_end: bool) -> bool:
        if self.config.evaluate_every is None:
            return is_epoch_end
        return step % self.config.evaluate_every == 0 or is_epoch_end

    def _validate(self, position: Position) -> tuple[Position, bool]:
        """The position with the stopping metric taken into account, and whether it is the best so far."""
        self._stepper.pause()
        value = self.validate(position)
        if value is None or self.validation is None:
            return position, False
        if math.isnan(value):
            # A validation that says nothing is not a worse one.
            _logger.warning(
                "step %d: %s is not defined on the validation split (too few rows or labels of one kind); it decides "
                "nothing here",
                position.step,
                self.validation.metric,
            )
            return position, False
        if self.validation.is_better(value, position.best_value):
            return replace(position, best_step=position.step, best_value=value, num_worse=0), True
        return replace(position, num_worse=position.num_worse + 1), False

    def _is_out_of_patience(self, position: Position) -> bool:
        return self.validation is not None and position.num_worse >= self.validation.patience
