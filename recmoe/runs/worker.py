"""run_worker: what every process of a training job does, from the encoder to the report."""

import json
import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from recmoe.config import dump_config
from recmoe.data.loader import Split
from recmoe.embeddings.logical import copy_into, dense_parameters, unwrap
from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import PlainTables
from recmoe.evaluation.evaluate import EvaluationConfig
from recmoe.evaluation.hidden_ids import HiddenIds, guess_hidden
from recmoe.evaluation.predict import Scored, predict_rows
from recmoe.evaluation.report import Report
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import write_bundle
from recmoe.export.replay import Replay
from recmoe.features.encoder import FeatureEncoder
from recmoe.model import MultiTaskRanker, PretrainingModel, TrainingModel, build_model
from recmoe.products import resolve_precision
from recmoe.runs.alarms import watching
from recmoe.runs.folder import RunFolder, write_atomically
from recmoe.runs.model_at_start import model_at_start
from recmoe.runs.origin import lineage_of
from recmoe.runs.pretraining import HiddenIdsValidator, judging_split, write_pretraining_report
from recmoe.runs.report import write_run_report
from recmoe.runs.splits import Splits
from recmoe.runs.validation import Validator
from recmoe.runs.warm_start import start_warm
from recmoe.training.checkpoint import CheckpointStore, load_weights
from recmoe.training.checkpoint_folder import committed, step_folder
from recmoe.training.divided_experts import divide_experts, travel_curves, whole_experts
from recmoe.training.loop import Trainer, TrainResult
from recmoe.training.position import Position
from recmoe.training.runtime import Runtime
from recmoe.training.stop import StopSignal

_logger = logging.getLogger(__name__)

NUM_REPLAY_ROWS = 1000
"""Raw rows that travel in the bundle with the training model's scores; every copy of the model must repeat them."""


def run_worker(
    config: ExperimentConfig,
    folder: RunFolder,
    *,
    runtime: Runtime,
    stop: StopSignal | None = None,
    is_trial: bool = False,
) -> None:
    """Train from the last committed checkpoint or from the start, score the test split, write the bundle.

    Every rank calls it; the first one writes into the folder.

    Args:
        stop: asked between steps whether to stop; signals to this process by default.
        is_trial: only its validations are of interest: no report, no bundle.
    """
    job = _Job(config, folder, runtime)
    result = job.train(stop or StopSignal())
    if runtime.is_main:
        folder.update_state(
            status="interrupted" if result.is_interrupted else "trained",
            step=result.position.step,
            num_samples=result.position.num_samples,
            best_step=result.position.best_step,
            best_value=result.position.best_value,
            samples_per_s=result.position.samples_per_s,
            train_s=result.position.train_s,
            wait_share=result.position.wait_share,
        )
    if not result.is_interrupted and not is_trial:
        job.load_best(result.position)
        job.finish()


class _Job:
    """One rank's part of a training job."""

    def __init__(self, config: ExperimentConfig, folder: RunFolder, runtime: Runtime) -> None:
        self.config = config
        self.folder = folder
        self.runtime = runtime
        self.encoder = FeatureEncoder.load(folder.encoder)
        self.tasks = config.task_set()
        self.splits = Splits(config, folder, encoder=self.encoder, runtime=runtime)
        model = model_at_start(config, folder, self.encoder, rank=runtime.rank)
        divide_experts(model, config.training.experts)
        self.placed = place(model, config=config.tables, device=runtime.device, find_unused_parameters=False)
        self.validator: Validator | HiddenIdsValidator
        if isinstance(model, PretrainingModel):
            self.validator = HiddenIdsValidator(config, self._guess)
        else:
            self.validator = Validator(config, self.tasks, self._score_validation)
        self.dense_optimizer = config.training.dense_optimizer.build(
            parameter for _, parameter in dense_parameters(self.placed.model)
        )
        self.checkpoints = CheckpointStore(
            folder.checkpoints,
            model=self.placed.model,
            dense_optimizer=self.dense_optimizer,
            table_optimizer=self.placed.table_optimizer,
            fingerprint=self.encoder.fingerprint,
            keep=config.training.keep_checkpoints,
            is_async=config.training.async_checkpoints,
        )
        if runtime.is_main:
            write_atomically(folder.plan, json.dumps(self.placed.plan, indent=2))

    @property
    def ranker(self) -> MultiTaskRanker:
        """The model that will serve."""
        return self._model.ranker

    @property
    def _model(self) -> TrainingModel | PretrainingModel:
        """The model inside whatever shards and replicates it."""
        model = unwrap(self.placed.model)
        assert isinstance(model, TrainingModel | PretrainingModel)
        return model

    def train(self, stop: StopSignal) -> TrainResult:
        """Go on from the last committed checkpoint, or start."""
        training = self.config.training
        stream = self.splits.stream("train")
        position = self._resumed()
        if position is None:
            self._start_warm()
            position = Position(cursor=stream.start())
        world = {"world_size": self.runtime.world_size, "batch_size": training.batch_size}
        num_steps = position.steps_of_run(stream.num_steps(stream.start(), **world), epochs=training.epochs, **world)
        num_steps = num_steps if training.max_steps is None else min(num_steps, training.max_steps)
        if self.runtime.is_main:
            self.folder.forget_after(position.step)
            self.folder.update_state(num_steps=num_steps, world_size=self.runtime.world_size)
        with stop, self.checkpoints.finishing():
            trainer = Trainer(
                model=self.placed.model,
                dense_optimizer=self.dense_optimizer,
                table_optimizer=self.placed.table_optimizer,
                stream=stream,
                loader=self.splits.loader("train", batch_size=training.batch_size),
                validate=self._validate,
                validation=self.validator.stopping,
                save=self._save,
                log=self._log,
                config=training,
                precision=resolve_precision(training.precision, self.runtime.device),
                runtime=self.runtime,
                loss_names=self._model.loss_names,
                stop=stop,
                prepare=self._model.prepare,
                curves=self._curves,
                watch=watching(self._model.watch, self.folder, is_main=self.runtime.is_main),
            )
            return trainer.train(position, num_steps=num_steps)

    def load_best(self, position: Position) -> None:
        """The weights that validated best, or the last ones where nothing was validated."""
        if position.best_step is not None and position.best_step != position.step:
            folder = step_folder(self.folder.checkpoints, position.best_step)
            load_weights(folder, model=self.placed.model, fingerprint=self.encoder.fingerprint)

    def finish(self) -> None:
        """Leave what a run is for: report and bundle; of a pre-training, how well ids are guessed."""
        if self.config.model.pretraining is None:
            self.set_levels()
            self.write_report()
            with whole_experts(self.placed.model):
                self.write_bundle()
            return
        split = judging_split(self.config)
        found = self._guess(split)
        if self.runtime.is_main:
            write_pretraining_report(self.folder, split, found)

    def set_levels(self) -> None:
        """Make predictions of amounts right on average over the validation split; nothing to do without one."""
        if not (self.config.data.validation and self.tasks.has_levels):
            return
        predictions = self._score("validation", EvaluationConfig()).predictions

        def of_task(name: str) -> tuple[Tensor, Tensor]:
            scores_N, labels_N = predictions.of_task(name)
            return torch.from_numpy(scores_N), torch.from_numpy(labels_N)

        self.ranker.shift(self.tasks.level_shifts(of_task))

    def write_report(self) -> None:
        """Score the test split with the training model itself; nothing to do without one."""
        if not self.config.data.test:
            return
        scored = self._score("test", self.config.evaluation)
        if self.runtime.is_main:
            write_run_report(self.config, self.folder, scored)

    def write_bundle(self) -> None:
        """Copy the model into plain tables and prove that it scores raw rows as the training model does."""
        stream = self.splits.stream("test" if self.config.data.test else "train")
        columns = self.encoder.columns(with_labels=False)
        rows = next(
            stream.blocks_in_file_order([(0, stream.num_rows)], batch_size=NUM_REPLAY_ROWS, columns=columns)
        ).table
        self.ranker.eval()
        with torch.no_grad():
            batch = self.encoder.encode(rows, with_labels=False).to(self.runtime.device)
            predictions_NT = self.ranker.predict(batch).cpu().numpy()
        plain = None
        if self.runtime.is_main:
            plain = build_model(
                layout=self.encoder.layout, tasks=self.tasks, config=self.config.model, tables=PlainTables
            )
        copy_into(plain, self.ranker)
        if plain is not None:
            text = self.folder.report.read_text(encoding="utf-8") if self.folder.report.exists() else None
            write_bundle(
                self.folder.bundle,
                name=self.config.name,
                config=dump_config(self.config),
                encoder=self.encoder,
                model=plain,
                replay=Replay.capture(
                    rows, encoder=self.encoder, task_names=self.tasks.names, predictions_NT=predictions_NT
                ),
                report=None if text is None else Report.from_json(text),
                lineage=lineage_of(self.folder),
                replace=True,
            )

    def _resumed(self) -> Position | None:
        step = self.checkpoints.latest()
        if step is None and self.runtime.is_main and committed(self.folder.checkpoints):
            _logger.warning("no checkpoint in %s can be used; the run starts again", self.folder.checkpoints)
        return None if step is None else Position.from_json(self.checkpoints.load(step))

    def _start_warm(self) -> None:
        """Go on from an earlier model, where the run was told to; what became of its weights is written down."""
        report = start_warm(
            self.config,
            self.folder,
            placed=self.placed,
            ranker=self.ranker,
            dense_optimizer=self.dense_optimizer,
            encoder=self.encoder,
        )
        if report is not None and self.runtime.is_main:
            write_atomically(self.folder.warm_start, json.dumps(report.to_json(), indent=2))

    def _validate(self, position: Position) -> float | None:
        """The stopping metric; None without a validation split or without early stopping."""
        if not self.config.data.validation:
            return None
        values, stopping = self.validator.values()
        self._log(position.step, values)
        return stopping

    def _guess(self, split: Split) -> dict[str, HiddenIds]:
        model = self._model
        assert isinstance(model, PretrainingModel)
        loader = self.splits.loader(split, batch_size=self.config.training.evaluation_batch_size)
        with whole_experts(self.placed.model):
            return guess_hidden(model, loader, gather=self.runtime.gather)

    def _score_validation(self) -> Scored:
        """The use of experts is cut by those slices that the split has, too."""
        known = self.splits.stream("validation").arrow_schema.names
        slices = tuple(column for column in self.config.evaluation.slices if column in known)
        config = self.config.evaluation.model_copy(update={"slices": slices})
        return self._score("validation", config, keeps_slices=False)

    def _score(self, split: Split, config: EvaluationConfig, *, keeps_slices: bool = True) -> Scored:
        with whole_experts(self.placed.model):
            return predict_rows(
                self.ranker,
                self.splits.loader(split, batch_size=self.config.training.evaluation_batch_size),
                slices=config.slices,
                max_slice_values=config.max_slice_values,
                keeps_slices=keeps_slices,
                gather=self.runtime.gather,
            )

    def _save(self, position: Position) -> None:
        self.checkpoints.save(position.step, position.to_json(), is_best=position.best_step == position.step)

    def _curves(self, train_s: float) -> Mapping[str, float]:
        return {**self._model.curves(), **travel_curves(self._model, train_s=train_s)}

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        if self.runtime.is_main:
            self.folder.log(step, values)
