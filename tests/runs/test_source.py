import shutil
from pathlib import Path

import pytest

from recmoe.errors import BundleError, TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.runs.folder import RunFolder
from recmoe.runs.source import bundle_of, load_ranker
from recmoe.runs.train import RunResult


def test_run_stands_for_its_bundle(finished: tuple[ExperimentConfig, RunResult]) -> None:
    folder = finished[1].folder

    assert bundle_of(str(folder.root)) == str(folder.bundle)
    assert bundle_of(str(folder.bundle)) == str(folder.bundle)
    assert bundle_of("models:/shop@champion") == "models:/shop@champion"


def test_run_and_its_bundle_give_the_same_ranker(finished: tuple[ExperimentConfig, RunResult]) -> None:
    folder = finished[1].folder

    rankers = [load_ranker(str(path)) for path in (folder.root, folder.bundle)]

    assert [ranker.task_names for ranker in rankers] == [("ctr", "cvr", "ctcvr")] * 2
    assert rankers[0].bundle.digest == rankers[1].bundle.digest


def test_unfinished_run_has_no_model(finished: tuple[ExperimentConfig, RunResult], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(finished[1].folder.root, run.root)
    shutil.rmtree(run.bundle)
    run.update_state(status="interrupted")

    with pytest.raises(TrainingError, match=r"is interrupted and has no bundle yet; go on with --resume"):
        load_ranker(str(run.root))


def test_folder_that_is_neither_run_nor_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=tmp_path.name):
        load_ranker(str(tmp_path))
