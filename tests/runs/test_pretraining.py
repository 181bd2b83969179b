"""A run that learns without labels: what it reads, what it leaves, and what a training takes over from it."""

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from recmoe.errors import TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.runs.folder import RunFolder
from recmoe.runs.origin import find_origin
from recmoe.runs.source import bundle_of
from recmoe.runs.train import RunResult
from recmoe.runs.warm_start import best_checkpoint, find_warm_start
from recmoe.training.checkpoint_folder import step_folder
from recmoe.training.snapshot import TENSORS
from recmoe.training.stored_tensors import StoredTensors

ExperimentMaker = Callable[..., ExperimentConfig]
Train = Callable[..., RunResult]

PRETRAINING = ("model.pretraining={share: 0.3}", "training.epochs=2", "training.early_stopping={metric: score}")
NO_STEPS = ("training.max_steps=1", "training.dense_optimizer.lr=1e-30", "tables.optimizer.lr=1e-30")
"""A single step that moves nothing."""


def tensors(checkpoint: Path) -> dict[str, Tensor]:
    """All that a checkpoint holds."""
    found = {}
    with StoredTensors(checkpoint / TENSORS) as stored:
        for name, tensor in stored.tensors.items():
            found[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
            stored.read_into(found[name], name, (0,) * found[name].ndim)
    return found


def best(folder: RunFolder) -> dict[str, Tensor]:
    checkpoint = best_checkpoint(folder)
    assert checkpoint is not None
    return tensors(checkpoint)


def without_labels(log: pa.Table, folder: Path) -> None:
    for name, rows in {"train": log, "validation": log.slice(0, 80), "test": log.slice(80)}.items():
        pq.write_table(rows.drop_columns(["click", "purchase"]), folder / f"{name}.parquet", row_group_size=60)


@pytest.fixture(scope="module")
def pretrained(
    train: Train, make_experiment: ExperimentMaker, shop_log: pa.Table, tmp_path_factory: pytest.TempPathFactory
) -> RunFolder:
    """Over files without labels."""
    folder = tmp_path_factory.mktemp("pretrained")
    without_labels(shop_log, folder)
    return train(make_experiment(folder, *PRETRAINING), folder / "run").folder


def test_no_label_is_read(
    pretrained: RunFolder, train: Train, make_experiment: ExperimentMaker, shop_log: pa.Table, tmp_path: Path
) -> None:
    wrong = shop_log
    for name in ("click", "purchase"):
        wrong = wrong.set_column(wrong.column_names.index(name), name, pa.array(["no label"] * wrong.num_rows))
    for name, rows in {"train": wrong, "validation": wrong.slice(0, 80), "test": wrong.slice(80)}.items():
        pq.write_table(rows, tmp_path / f"{name}.parquet", row_group_size=60)

    result = train(make_experiment(tmp_path, *PRETRAINING), tmp_path / "run")

    mine, theirs = best(result.folder), best(pretrained)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_it_reports_how_well_hidden_ids_are_guessed(pretrained: RunFolder) -> None:
    report = pretrained.pretraining_report()

    assert report is not None
    assert report["split"] == "test"
    assert {name: one["classes"] for name, one in report["features"].items()} == {"user_id": 20, "item_id": 29}
    for one in report["features"].values():
        assert 15 <= one["hidden"] <= 60
        assert one["saved"] == pytest.approx(1 - one["loss"] / one["frequency_loss"])
    assert report["score"] == pytest.approx(np.mean([one["saved"] for one in report["features"].values()]))
    assert not pretrained.report.exists()
    assert pretrained.state["status"] == "finished"


def test_best_checkpoint_is_that_of_the_best_guesses(pretrained: RunFolder) -> None:
    lines = [json.loads(line) for line in pretrained.metrics.read_text().splitlines()]
    scores = {line["step"]: line["val/score"] for line in lines if "val/score" in line}

    assert len(scores) == 2
    assert pretrained.state["best_value"] == pytest.approx(max(scores.values()))
    assert scores[pretrained.state["best_step"]] == pytest.approx(max(scores.values()))
    assert {"val/hidden.user_id.saved", "val/hidden.item_id.saved"} <= lines[-1].keys()
    assert any("train/hidden.item_id/loss" in line for line in lines)


def test_resumed_pretraining_equals_an_unbroken_one(
    pretrained: RunFolder, train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    config = make_experiment(pretrained.root.parent, *PRETRAINING)

    def stop(step: int, values: Mapping[str, float]) -> None:
        if step == 30 and "train/lr" in values:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = train(config, tmp_path / "run", event=stop)
    resumed = train(config, tmp_path / "run", resume=True)

    assert stopped.is_interrupted
    assert resumed.folder.pretraining_report() == pretrained.pretraining_report()
    mine, theirs = best(resumed.folder), best(pretrained)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_finished_pretraining_is_left_as_it_is(
    pretrained: RunFolder, train: Train, make_experiment: ExperimentMaker
) -> None:
    before = pretrained.pretraining.stat().st_mtime_ns

    result = train(make_experiment(pretrained.root.parent, *PRETRAINING), pretrained.root, resume=True)

    assert (result.report, result.is_interrupted) == (None, False)
    assert pretrained.pretraining.stat().st_mtime_ns == before


WIDTH = 4
"""Floats of a vector; weights of the linear part, which a pre-training leaves at zero, follow it."""
CARRIED = (
    "dense/ranker.model.architecture",
    "dense/ranker.input_layer.shared_vectors",
    "dense/ranker.input_layer.own_vectors",
)


def test_training_begins_with_its_tables_gates_and_experts_and_new_towers(
    pretrained: RunFolder, train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path, *NO_STEPS)
    cold = tensors(step_folder(train(config, tmp_path / "cold").folder.checkpoints, 1))

    warm = train(config, tmp_path / "warm", warm_start=find_warm_start(str(pretrained.root)))

    source, found = best(pretrained), tensors(step_folder(warm.folder.checkpoints, 1))
    for name, tensor in found.items():
        if name.startswith("tables/"):
            assert torch.equal(tensor[:, :WIDTH], source[name][:, :WIDTH]), name
        elif name.startswith(CARRIED):
            assert torch.equal(tensor, source[name]), name
        elif name.startswith("dense/"):
            # Of a cold run over the same rows: towers as they are drawn, and where the tasks start.
            assert torch.allclose(tensor, cold[name], rtol=0, atol=1e-20), name
    assert not torch.equal(source["tables/item_id"][:, :WIDTH], cold["tables/item_id"][:, :WIDTH])
    report = warm.folder.warm_start_report()
    assert report is not None
    assert all(name.startswith(("model.towers", "start_T", "unit_T")) for name in report["dense_new"])
    assert any(name.startswith("model.towers") for name in report["dense_new"])


def test_rows_that_only_the_pretraining_has_seen_are_known(
    pretrained: RunFolder, train: Train, make_experiment: ExperimentMaker, shop_log: pa.Table, tmp_path: Path
) -> None:
    pq.write_table(shop_log.slice(0, 20), tmp_path / "train.parquet")
    start = find_warm_start(str(pretrained.root))

    result = train(make_experiment(tmp_path, *NO_STEPS), tmp_path / "run", warm_start=start)

    report = result.folder.warm_start_report()
    assert report is not None
    assert {name: (table["kept"], table["new"]) for name, table in report["tables"].items()} == {
        "user_id": (21, 0),
        "item_id": (30, 0),
        "tags": (6, 0),
        "age#bucket": (report["tables"]["age#bucket"]["rows"], 0),
    }


def test_pretraining_goes_on_from_a_pretraining(
    pretrained: RunFolder, train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    config = make_experiment(pretrained.root.parent, *PRETRAINING, *NO_STEPS)

    result = train(config, tmp_path / "run", warm_start=find_warm_start(str(pretrained.root)))

    source, found = best(pretrained), tensors(step_folder(result.folder.checkpoints, 1))
    names = [name for name in source if name.startswith(("dense/", "tables/"))]
    assert all(torch.equal(found[name], source[name]) for name in names)
    assert any(name.startswith("dense/heads.") for name in names)


def test_without_other_splits_the_training_rows_judge(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path, "model.pretraining={features: [item_id]}", "data.validation=[]", "data.test=[]")

    report = train(config, tmp_path / "run").folder.pretraining_report()

    assert report is not None
    assert (report["split"], list(report["features"])) == ("train", ["item_id"])


def test_id_that_is_always_the_same_gives_no_score(
    train: Train, make_experiment: ExperimentMaker, shop_log: pa.Table, tmp_path: Path
) -> None:
    place = shop_log.column_names.index("user_id")
    same = shop_log.set_column(place, "user_id", pa.array(["u"] * shop_log.num_rows))
    for name in ("train", "validation", "test"):
        pq.write_table(same, tmp_path / f"{name}.parquet")
    changes = ("model.pretraining={features: [user_id]}", "training.early_stopping={metric: score}")

    result = train(make_experiment(tmp_path, *changes), tmp_path / "run")

    report: Any = result.folder.pretraining_report()
    assert (report["score"], report["features"]["user_id"]["saved"]) == (None, None)
    assert result.folder.state["best_step"] is None


def test_pretraining_has_no_bundle(pretrained: RunFolder) -> None:
    with pytest.raises(TrainingError, match=r"is a pre-training, which predicts no task; train from it with recmoe"):
        bundle_of(str(pretrained.root))


def test_student_cannot_be_a_pretraining(
    train: Train, make_experiment: ExperimentMaker, finished: tuple[ExperimentConfig, RunResult], tmp_path: Path
) -> None:
    origin = find_origin(str(finished[1].folder.root), made_by="distil")

    with pytest.raises(TrainingError, match=r"model\.pretraining is set, and what distil makes learns tasks; drop"):
        train(make_experiment(tmp_path, *PRETRAINING), tmp_path / "run", origin=origin)


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
@pytest.mark.filterwarnings("ignore:Operation with range is deprecated")
def test_pretraining_is_recorded(
    train: Train, make_experiment: ExperimentMaker, mlflow_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recmoe.tracking.mlflow_store import MlflowStore

    monkeypatch.chdir(tmp_path)
    config = make_experiment(tmp_path, "model.pretraining={}", "tracking={kind: mlflow, system_metrics: false}")

    result = train(config, mlflow_folder / "pretrained")

    client = MlflowStore.connect(None, folder=mlflow_folder).client
    run = client.get_run(result.folder.state["tracking_run_id"])
    report = result.folder.pretraining_report()
    assert report is not None
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/score"] == pytest.approx(report["score"])
    assert {"train/hidden.item_id/loss", "val/hidden.item_id.saved", "val/score"} <= set(run.data.metrics)
    artifacts = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert artifacts == {"config.json", "plan.json", "pretraining.json"}
