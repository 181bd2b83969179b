"""The loop over a log of 40 rows in 10 steps; validation values are given, checkpoints are noted down."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recmoe.balancing.weightings import FixedWeightingConfig
from recmoe.data.loader import BatchLoader
from recmoe.data.order import Cursor
from recmoe.data.parquet import ParquetStream
from recmoe.embeddings.logical import dense_parameters
from recmoe.embeddings.placement import place
from recmoe.embeddings.tables import TablesConfig
from recmoe.errors import CheckpointError, TrainingError
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.schema import FeatureSchema
from recmoe.model import ModelConfig, TrainingModel, build_model
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.training.early_stopping import Validation
from recmoe.training.loop import Trainer, TrainingConfig, TrainResult
from recmoe.training.position import Position
from recmoe.training.runtime import Runtime
from recmoe.training.stop import StopSignal

CPU = torch.device("cpu")
SCHEMA = FeatureSchema.model_validate({"width": 2, "features": {"user": {"kind": "id"}, "price": {"kind": "numeric"}}})
HIGHER = Validation(metric="ctr.auc[all]", is_higher_better=True, min_delta=0.0, patience=2)


class Job:
    """A trainer, and what it saved, validated and logged."""

    def __init__(
        self,
        folder: Path,
        *,
        num_rows: int = 40,
        values: Sequence[float] = (),
        validation: Validation | None = None,
        stop_at: int | None = None,
        clip_norm: float | None = 10.0,
        lr: float = 0.01,
        **training: Any,
    ) -> None:
        log = pa.table(
            {
                "user": [str(i % 7) for i in range(num_rows)],
                "price": [float(i) for i in range(num_rows)],
                "click": [i % 2 for i in range(num_rows)],
            }
        )
        pq.write_table(log, folder / "log.parquet")
        tasks = TaskSet({"ctr": BinaryTaskConfig(label="click")})
        encoder = FeatureEncoder.fit(SCHEMA, [log], tasks.label_columns)
        self.stream = ParquetStream([str(folder / "log.parquet")], seed=0, shuffle_rows=100, cache_dir=folder)
        self.config = TrainingConfig.model_validate(
            {
                "batch_size": 4,
                "checkpoint_every": 1000,
                "clip_norm": clip_norm,
                "dense_optimizer": {"kind": "adamw", "lr": lr},
                **training,
            }
        )
        tables = TablesConfig(backend="plain")
        torch.manual_seed(0)
        model = ModelConfig.model_validate({"architecture": {"kind": "shared_bottom", "hidden": [4]}})
        ranker = build_model(
            layout=encoder.layout, tasks=tasks, config=model, tables=lambda layout: tables.build(layout=layout, seed=0)
        )
        weighting = FixedWeightingConfig().build(weights=[1.0], outputs=["binary"])
        self.placed = place(TrainingModel(ranker=ranker, weighting=weighting), config=tables, device=CPU)
        self.stop = StopSignal()
        self.stop_at = stop_at
        self.values = iter(values)
        self.saved: list[Position] = []
        self.validated: list[int] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.trainer = Trainer(
            model=self.placed.model,
            dense_optimizer=self.config.dense_optimizer.build(p for _, p in dense_parameters(self.placed.model)),
            table_optimizer=self.placed.table_optimizer,
            stream=self.stream,
            loader=BatchLoader(self.stream, encoder, batch_size=4),
            validate=self.validate,
            validation=validation,
            save=self.saved.append,
            log=self.log,
            config=self.config,
            precision="fp32",
            runtime=Runtime(0, 1, 1, CPU),
            loss_names=("ctr",),
            stop=self.stop,
        )

    def validate(self, position: Position) -> float | None:
        self.validated.append(position.step)
        return next(self.values, None)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.logged.append((step, dict(values)))
        if step == self.stop_at:
            self.stop.is_requested = True

    def train(self, position: Position | None = None, *, num_steps: int = 1000) -> TrainResult:
        return self.trainer.train(position or Position(cursor=self.stream.start()), num_steps=num_steps)


JobMaker = Callable[..., Job]


def gradient_norm(job: Job) -> float:
    """Of the dense part, after the last step."""
    grads = [p.grad for _, p in dense_parameters(job.placed.model) if p.grad is not None]
    return float(torch.stack([grad.norm() for grad in grads]).norm())


@pytest.fixture
def make_job(tmp_path: Path) -> JobMaker:
    return lambda **changes: Job(tmp_path, **changes)


def test_epochs_end_with_a_validation_and_the_run_with_a_checkpoint(make_job: JobMaker) -> None:
    job = make_job(epochs=2)

    result = job.train()

    assert job.validated == [10, 20]
    assert [position.step for position in job.saved] == [20]
    assert result.position.step == 20
    assert result.position.num_samples == 80
    assert not result.is_interrupted
    assert [step for step, _ in job.logged] == [10, 20]
    assert set(job.logged[0][1]) == {
        "train/ctr/loss",
        "train/samples_per_s",
        "train/data_wait_share",
        "train/lr",
        "train/gradient_norm/all",
    }


def test_rows_short_of_a_step_are_left_out_of_their_epoch(make_job: JobMaker) -> None:
    job = make_job(num_rows=11, epochs=3)

    result = job.train()

    assert job.validated == [2, 4, 6]
    assert result.position.num_samples == 24


def test_rest_of_an_epoch_that_is_less_than_a_step_is_skipped(make_job: JobMaker) -> None:
    job = make_job(epochs=2)

    result = job.train(Position(cursor=Cursor(0, ((37, 40),)), step=9))

    assert job.validated == [19]
    assert result.position.step == 19


def test_last_step_ends_an_epoch_early(make_job: JobMaker) -> None:
    job = make_job(epochs=2)

    result = job.train(num_steps=13)

    assert job.validated == [10, 13]
    assert result.position.cursor == job.stream.advance(job.stream.start(1), num_steps=3, world_size=1, batch_size=4)


def test_checkpoints_and_validations_come_at_their_steps(make_job: JobMaker) -> None:
    job = make_job(epochs=1, evaluate_every=4, checkpoint_every=3)

    job.train()

    assert job.validated == [4, 8, 10]
    assert [position.step for position in job.saved] == [3, 6, 9, 10]


def test_better_values_are_saved_at_once_and_patience_ends_the_run(make_job: JobMaker) -> None:
    job = make_job(epochs=9, validation=HIGHER, values=[0.5, 0.7, 0.6, 0.7])

    result = job.train()

    # Equal is not better.
    assert job.validated == [10, 20, 30, 40]
    assert [(position.step, position.best_step) for position in job.saved] == [(10, 10), (20, 20), (40, 20)]
    assert (result.position.best_step, result.position.best_value, result.position.num_worse) == (20, 0.7, 2)
    assert not result.is_interrupted


def test_run_out_of_patience_stays_so_when_resumed(make_job: JobMaker) -> None:
    job = make_job(epochs=9, validation=HIGHER)
    position = Position(cursor=job.stream.start(3), step=30, best_step=10, best_value=0.5, num_worse=2)

    result = job.train(position)

    assert result.position == position
    assert job.validated == []
    assert job.saved == []


@pytest.mark.parametrize(
    ("is_higher_better", "value", "best", "is_better"),
    [
        (True, 0.5, None, True),
        (True, 0.61, 0.5, True),
        (True, 0.59, 0.5, False),
        (False, 0.39, 0.5, True),
        (False, 0.41, 0.5, False),
    ],
)
def test_better_is_better_by_min_delta(
    is_higher_better: bool, value: float, best: float | None, is_better: bool
) -> None:
    validation = Validation(metric="x", is_higher_better=is_higher_better, min_delta=0.1, patience=1)

    assert validation.is_better(value, best) is is_better


def test_undefined_metric_decides_nothing_and_is_warned_of(
    make_job: JobMaker, caplog: pytest.LogCaptureFixture
) -> None:
    job = make_job(epochs=5, validation=HIGHER, values=[0.5, math.nan, math.nan, math.nan, 0.9])

    result = job.train()

    assert result.position.cursor.epoch == 5
    assert (result.position.best_value, result.position.num_worse) == (0.9, 0)
    assert sum("is not defined on the validation split" in record.message for record in caplog.records) == 3


def test_request_to_stop_is_granted_with_a_checkpoint(make_job: JobMaker) -> None:
    job = make_job(epochs=3, stop_at=10)

    result = job.train()

    assert result.is_interrupted
    # Asked for while the losses of step 10 were written; step 11 is the next to look.
    assert result.position.step == 11
    assert [position.step for position in job.saved] == [11]
    assert result.position.num_summed == 1


def test_interrupted_losses_are_logged_with_the_rest_of_their_steps(make_job: JobMaker) -> None:
    whole = make_job(epochs=3)
    whole.train()
    job = make_job(epochs=3)
    job.stop.is_requested = True

    stopped = job.train()
    job.stop.is_requested = False
    job.train(Position.from_json(json.loads(json.dumps(stopped.position.to_json()))))

    assert stopped.position.step == 1
    losses = [[values["train/ctr/loss"] for _, values in each.logged] for each in (whole, job)]
    assert losses[0] == losses[1]


def test_speed_is_that_of_this_process(make_job: JobMaker) -> None:
    job = make_job(epochs=2)
    # An earlier process took a day for the first epoch, half of it waiting.
    earlier = Position(cursor=job.stream.start(1), step=10, train_s=86_400.0, wait_s=43_200.0, num_samples=40)

    result = job.train(earlier)

    own_s = result.position.train_s - 86_400.0
    ((_, values),) = job.logged
    assert values["train/samples_per_s"] == pytest.approx(40 / own_s, rel=1e-3)
    assert values["train/data_wait_share"] == pytest.approx((result.position.wait_s - 43_200.0) / own_s, rel=1e-3)
    assert 0 <= values["train/data_wait_share"] <= 1
    # The result speaks of the whole run.
    assert result.position.samples_per_s == pytest.approx(80 / 86_400.0, rel=1e-3)
    assert result.position.wait_share == pytest.approx(0.5, rel=1e-3)


def test_schedule_sets_the_rates_of_dense_part_and_tables(make_job: JobMaker) -> None:
    job = make_job(epochs=1, schedule={"kind": "linear", "final": 0.5})

    job.train(num_steps=10)

    # Step 9 of 10, counted from 0: 1 - 0.5 * 9 / 10.
    assert job.logged[-1][1]["train/lr"] == pytest.approx(0.01 * 0.55)
    table_optimizer = job.placed.table_optimizer
    assert table_optimizer.lr == pytest.approx(table_optimizer.rule.lr * 0.55)


@pytest.mark.parametrize("clip_norm", [1e-3, None])
def test_gradient_is_clipped_where_asked(make_job: JobMaker, clip_norm: float | None) -> None:
    job = make_job(clip_norm=clip_norm)

    job.train(num_steps=1)

    assert (gradient_norm(job) <= 1.001e-3) is (clip_norm is not None)


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_gradient_is_clipped_to_the_norm_asked_for(make_job: JobMaker, share: float) -> None:
    norms = []
    for clip_norm in (None, 1.0):
        job = make_job(clip_norm=clip_norm and share * norms[0])
        job.train(num_steps=1)
        norms.append(gradient_norm(job))

    assert norms[1] == pytest.approx(norms[0] * min(share, 1.0), rel=1e-4)


def test_loss_that_is_not_finite_stops_the_run_before_it_is_saved(make_job: JobMaker) -> None:
    job = make_job(epochs=9, checkpoint_every=4)
    with torch.no_grad():
        next(p for _, p in dense_parameters(job.placed.model)).fill_(math.nan)

    with pytest.raises(TrainingError, match=r"step 4: the loss of ctr is not finite; lower training\.dense_optimizer"):
        job.train()

    assert job.saved == []


def test_position_survives_json() -> None:
    position = Position(
        cursor=Cursor(2, ((3, 5), (7, 9))),
        step=4,
        best_step=2,
        best_value=0.1,
        num_worse=1,
        train_s=1.5,
        wait_s=0.5,
        num_samples=16,
        loss_sums=(0.1, 0.2),
        num_summed=3,
    )

    assert Position.from_json(json.loads(json.dumps(position.to_json()))) == position
    assert replace(position, num_samples=30).samples_per_s == 20.0


def test_position_of_another_version_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"written by another version of recmoe \('cursor'\); train in another"):
        Position.from_json({"step": 3})
