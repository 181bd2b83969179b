"""A run that is gone on with while it runs, after it has ended, and in another place."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.errors import TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.export import export_run
from recmoe.runs.folder import RunFolder
from recmoe.runs.train import RunResult, remake_bundle
from tests.parity.of_runs import assert_same_report

Train = Callable[..., RunResult]
ExperimentMaker = Callable[..., ExperimentConfig]


def sigterm_at_10(step: int, values: Mapping[str, float]) -> None:
    if step == 10 and "train/lr" in values:
        os.kill(os.getpid(), signal.SIGTERM)


def steps_of(folder: RunFolder) -> list[int]:
    lines = folder.metrics.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["step"] for line in lines if "train/lr" in json.loads(line)]


def test_run_that_goes_on_is_not_resumed_and_its_curves_are_not_doubled(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path)
    refused: list[str] = []

    def resume_beside(step: int, values: Mapping[str, float]) -> None:
        if step == 10 and "train/lr" in values:
            with pytest.raises(TrainingError) as caught:
                train(config, tmp_path / "run", resume=True)
            refused.append(str(caught.value))

    result = train(config, tmp_path / "run", event=resume_beside)

    assert f"process {os.getpid()} on host" in refused[0]
    assert result.folder.state["status"] == "finished"
    assert steps_of(result.folder) == [10, 20, 25]


def test_bundle_that_was_removed_is_made_again_as_it_was(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    config = make_experiment(
        tmp_path, "training.early_stopping={metric: 'ctr.auc[all]', patience: 1}", "training.evaluate_every=5"
    )
    first = train(config, tmp_path / "run")
    digests = {name: file["sha256"] for name, file in manifest(first.folder.bundle).items()}
    curves, report = first.folder.metrics.read_bytes(), first.folder.report.read_bytes()
    shutil.rmtree(first.folder.bundle)

    with pytest.raises(TrainingError, match="is gone; recmoe train --resume or recmoe export makes it again"):
        export_run(first.folder, tmp_path / "out")
    again = train(config, tmp_path / "run", resume=True)
    by_resume = {name: file["sha256"] for name, file in manifest(again.folder.bundle).items()}
    shutil.rmtree(first.folder.bundle)
    remake_bundle(first.folder)

    ModelBundle.load(first.folder.bundle).check_replay()
    by_export = {name: file["sha256"] for name, file in manifest(first.folder.bundle).items()}
    assert digests == by_resume == by_export
    assert (first.folder.metrics.read_bytes(), first.folder.report.read_bytes()) == (curves, report)
    assert_same_report(again.report, first.report)


def manifest(bundle: Path) -> dict[str, dict[str, object]]:
    files: dict[str, dict[str, object]] = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["files"]
    return files


def test_bundle_without_checkpoints_cannot_be_made_again(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path, "training.max_steps=3")
    folder = train(config, tmp_path / "run").folder
    shutil.rmtree(folder.bundle)
    shutil.rmtree(folder.checkpoints)

    with pytest.raises(TrainingError, match="is gone, and so are the checkpoints that it could be made from; put one"):
        train(config, tmp_path / "run", resume=True)

    assert folder.state["status"] == "finished"


def test_moved_run_with_moved_files_goes_on_to_the_same_model(
    train: Train, make_experiment: ExperimentMaker, finished: tuple[ExperimentConfig, RunResult], tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    config = make_experiment(old)
    stopped = train(config, old / "run", event=sigterm_at_10)
    old.rename(new)
    (new / "train.parquet").rename(new / "log.parquet")
    moved = make_experiment(new, f"data.train={new}/log.parquet")

    result = train(moved, new / "run", resume=True)

    assert stopped.is_interrupted
    assert steps_of(result.folder) == [10, 20, 25]
    assert json.loads(result.folder.config.read_text(encoding="utf-8"))["data"]["train"] == [f"{new}/log.parquet"]
    assert_same_report(result.report, finished[1].report)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_other_files_in_the_place_of_moved_ones_are_refused(
    train: Train, make_experiment: ExperimentMaker, shop_log: pa.Table, tmp_path: Path, split: str
) -> None:
    config = make_experiment(tmp_path)
    train(config, tmp_path / "run", event=sigterm_at_10)
    pq.write_table(shop_log.slice(3), tmp_path / "other.parquet")
    other = make_experiment(tmp_path, f"data.{split}={tmp_path}/other.parquet")

    with pytest.raises(
        TrainingError, match=rf"data\.{split} names other files than those .* but not with .*other\.parquet: name them"
    ):
        train(other, tmp_path / "run", resume=True)
    result = train(config, tmp_path / "run", resume=True)

    assert result.folder.state["status"] == "finished"
