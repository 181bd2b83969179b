"""A student that learns from a teacher: what it reads of it, what it ends with, and how it resumes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.errors import SchemaError, TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.folder import RunFolder
from recmoe.runs.origin import find_origin
from recmoe.runs.train import RunResult

ExperimentMaker = Callable[..., ExperimentConfig]
Train = Callable[..., RunResult]

DENSE = "model.architecture={kind: shared_bottom, hidden: [8]}"
MIXTURE = "model.architecture={kind: ple, num_task_experts: 1, num_shared_experts: 1, expert_hidden: [8]}"


@pytest.fixture(scope="module")
def teacher_run(train: Train, make_experiment: ExperimentMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture that has learned the log by heart."""
    folder = tmp_path_factory.mktemp("teacher")
    config = make_experiment(folder, "training.epochs=12", "training.dense_optimizer.lr=0.03")
    return train(config, folder / "run").folder.root


def predictions(run: Path, rows: pa.Table) -> np.ndarray:
    return ModelBundle.load(run / "bundle").predict(rows)


@pytest.mark.parametrize("architecture", [DENSE, MIXTURE], ids=["to a dense model", "to a mixture"])
def test_student_of_the_teacher_alone_predicts_what_it_predicts(
    architecture: str,
    train: Train,
    make_experiment: ExperimentMaker,
    teacher_run: Path,
    shop_log: pa.Table,
    tmp_path: Path,
) -> None:
    longer = ("training.epochs=20", "training.dense_optimizer.lr=0.01", architecture)
    teacher = find_origin(str(teacher_run), made_by="distil")

    taught = train(make_experiment(tmp_path, *longer, "model.distillation.weight=1000"), tmp_path / "a", teacher=teacher)
    alone = train(make_experiment(tmp_path, *longer), tmp_path / "b")

    wanted = predictions(teacher_run, shop_log)
    distances = [np.abs(predictions(run.folder.root, shop_log) - wanted).mean() for run in (taught, alone)]
    print(distances)
    assert distances[0] < 0.5 * distances[1]
