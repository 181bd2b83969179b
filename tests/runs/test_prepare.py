"""A run that is prepared by itself, and then trained."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.errors import DataError, TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.runs.encoder import ReadHere
from recmoe.runs.folder import RunFolder
from recmoe.runs.prepare import prepare_run
from recmoe.runs.train import RunResult

ExperimentMaker = Callable[..., ExperimentConfig]
Train = Callable[..., RunResult]


def written(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "encoder").iterdir()}


def test_training_goes_on_from_a_prepared_folder(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    encoder = prepare_run(make_experiment(tmp_path), root, resume=False, reading=ReadHere())
    status, before = RunFolder(root).state["status"], written(root)

    result = train(make_experiment(tmp_path, "training.max_steps=3", "data.memory_gb=1"), root)

    assert status == "prepared"
    assert result.folder.state["status"] == "finished"
    assert written(root) == before
    assert encoder.fingerprint in (root / "encoder/encoder.json").read_text()


def test_preparing_again_reads_nothing_and_leaves_a_finished_run_alone(
    finished: tuple[ExperimentConfig, RunResult],
) -> None:
    config, result = finished
    state, before = result.folder.state, written(result.folder.root)

    again = prepare_run(config, result.folder.root, resume=True, reading=ReadHere())

    assert (result.folder.state, written(result.folder.root)) == (state, before)
    assert again.fingerprint in (result.folder.encoder / "encoder.json").read_text()


def test_preparation_that_failed_is_started_again_without_resume(
    make_experiment: ExperimentMaker, shop_log: pa.Table, tmp_path: Path
) -> None:
    config, root = make_experiment(tmp_path), tmp_path / "run"
    place = shop_log.column_names.index("click")
    pq.write_table(shop_log.set_column(place, "click", [[1] * 199 + [3]]), tmp_path / "validation.parquet")
    with pytest.raises(DataError, match=r"validation\.parquet, row 199 of the file: label column 'click' holds 3"):
        prepare_run(config, root, resume=False, reading=ReadHere())
    pq.write_table(shop_log, tmp_path / "validation.parquet")

    prepare_run(config, root, resume=False, reading=ReadHere())

    assert RunFolder(root).state["status"] == "prepared"


def test_folder_of_another_run_is_refused(finished: tuple[ExperimentConfig, RunResult]) -> None:
    config, result = finished

    with pytest.raises(TrainingError, match="holds a run already; go on with --resume"):
        prepare_run(config, result.folder.root, resume=False, reading=ReadHere())
