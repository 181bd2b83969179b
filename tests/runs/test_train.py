"""What a run leaves behind, how it is gone on with, and where it is recorded."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.errors import DataError, TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.runs.folder import RunFolder
from recmoe.runs.train import RunResult, prepare

Train = Callable[..., RunResult]
ExperimentMaker = Callable[..., ExperimentConfig]


def sigterm_at(asked: int) -> Callable[[int, Mapping[str, float]], None]:
    def event(step: int, values: Mapping[str, float]) -> None:
        if step == asked and "train/lr" in values:
            os.kill(os.getpid(), signal.SIGTERM)

    return event


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When every file was written, and what is in it."""
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_finished_run_leaves_report_page_plan_and_bundle(finished: tuple[ExperimentConfig, RunResult]) -> None:
    _, result = finished

    folder = result.folder
    assert folder.state["status"] == "finished"
    assert folder.state["step"] == folder.state["num_steps"] == 25
    assert folder.state["samples_per_s"] == result.samples_per_s > 0
    assert 0 <= folder.state["wait_share"] <= 1
    assert result.report is not None
    assert 0 <= result.report.value("ctr.auc[all]") <= 1
    assert "<html" in folder.page.read_text()
    assert {row["table"] for row in json.loads(folder.plan.read_text())} == {"user_id", "tags", "age#bucket", "item_id"}
    assert folder.bundle.is_dir()


def test_finished_run_is_left_alone(finished: tuple[ExperimentConfig, RunResult], train: Train) -> None:
    config, result = finished
    before = contents(result.folder.root)

    again = train(config, result.folder.root, resume=True)

    assert again == RunResult(again.folder, False, result.report, result.samples_per_s)
    assert contents(result.folder.root) == before


def test_run_without_a_test_split_has_no_report(train: Train, make_experiment: ExperimentMaker, tmp_path: Path) -> None:
    config = make_experiment(tmp_path, "data.test=[]", "data.validation=[]", "training.max_steps=5")

    result = train(config, tmp_path / "run")

    assert result.report is None
    assert not result.folder.report.exists()
    assert result.folder.state["step"] == 5
    assert result.folder.bundle.is_dir()


def test_resume_with_another_config_is_refused(
    finished: tuple[ExperimentConfig, RunResult], train: Train, make_experiment: ExperimentMaker
) -> None:
    _, result = finished
    root = result.folder.root
    other = make_experiment(root.parent, "training.batch_size=4", "data.shuffle_rows=7")

    with pytest.raises(TrainingError, match=r"another config: data\.shuffle_rows, training\.batch_size; resume with"):
        train(other, root, resume=True)


def test_resume_with_other_training_files_is_refused(
    train: Train, make_experiment: ExperimentMaker, shop_log: pa.Table, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path)
    root = tmp_path / "run"
    stopped = train(config, root, event=sigterm_at(10))
    pq.write_table(shop_log.slice(0, 150), tmp_path / "train.parquet")

    with pytest.raises(TrainingError, match=r"run: the training files have changed since the run started.* put them"):
        train(config, root, resume=True)

    assert stopped.is_interrupted
    assert stopped.report is None
    assert stopped.folder.state["status"] == "failed"


def test_failed_run_goes_on_after_its_data_is_mended(
    train: Train, make_experiment: ExperimentMaker, shop_log: pa.Table, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path, "training.max_steps=3")
    root = tmp_path / "run"
    clicks = shop_log["click"].to_pylist()
    column = shop_log.column_names.index("click")
    broken = shop_log.set_column(column, "click", pa.array([*clicks[:150], 2, *clicks[151:]]))
    pq.write_table(broken, tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"train\.parquet.*click.*row 150"):
        train(config, root)
    failed = RunFolder(root).state["status"]
    pq.write_table(shop_log, tmp_path / "train.parquet")

    result = train(config, root, resume=True)

    assert failed == "failed"
    assert result.folder.state["status"] == "finished"


def test_files_that_changed_before_the_first_checkpoint_are_learnt_from_anew(
    make_experiment: ExperimentMaker, shop_log: pa.Table, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path)
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    first = prepare(config, folder)
    again = prepare(config, folder)
    pq.write_table(shop_log.slice(0, 100), tmp_path / "train.parquet")

    second = prepare(config, folder)

    assert first.fingerprint == again.fingerprint != second.fingerprint


def test_error_that_is_not_ours_leaves_a_failed_run(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    def fall(step: int, values: Mapping[str, float]) -> None:
        del step, values
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_experiment(tmp_path), tmp_path / "run", event=fall)

    assert RunFolder(tmp_path / "run").state["status"] == "failed"


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
@pytest.mark.filterwarnings("ignore:Operation with range is deprecated")
def test_run_is_recorded_under_one_id_whatever_stops_it(
    train: Train,
    make_experiment: ExperimentMaker,
    mlflow_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from recmoe.tracking.mlflow_store import MlflowStore

    monkeypatch.chdir(tmp_path)
    config = make_experiment(
        tmp_path,
        "tracking={kind: mlflow, system_metrics: false}",
        "training.early_stopping={metric: 'ctr.auc[all]'}",
        "training.evaluate_every=10",
    )
    root = mlflow_folder / "first"
    client = MlflowStore.connect(None, folder=mlflow_folder).client

    train(config, root, event=sigterm_at(10))
    first_id = RunFolder(root).state["tracking_run_id"]
    first_status = client.get_run(first_id).info.status
    result = train(config, root, resume=True)

    run = client.get_run(first_id)
    assert result.folder.state["tracking_run_id"] == first_id
    assert (first_status, run.info.status) == ("KILLED", "FINISHED")
    assert run.info.run_name == "first"
    assert run.data.params["model.architecture.num_experts"] == "3"
    assert run.data.params["training.batch_size"] == "8"
    assert run.data.tags["recmoe.architecture"] == "mmoe"
    assert run.data.tags["recmoe.seed"] == "3"
    assert run.data.tags["recmoe.folder"] == run.data.tags["mlflow.source.name"] == str(root)
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.name, json.loads(dataset.profile)) == ("train.parquet", {"num_rows": 200})
    assert result.folder.state["tracking_page"].endswith(f"127.0.0.1:5000/#/experiments/{run.info.experiment_id}/runs")
    assert run.data.tags["recmoe.bundle"] == str(result.folder.bundle)
    assert {"train/ctr/loss", "train/samples_per_s", "train/lr", "val/ctr/auc.all", "val/cvr/auc.click"} <= set(
        run.data.metrics
    )
    assert result.report is not None
    for name, metric in (("ctr.ndcg@10[all]", "test/ctr/ndcg_10.all"), ("cvr.auc[click]", "test/cvr/auc.click")):
        assert run.data.metrics[metric] == pytest.approx(result.report.value(name))
    num_values = len(result.report.values()) + len(result.report.experts)
    assert len([name for name in run.data.metrics if name.startswith("test/")]) == num_values
    for prefix in ("", "test/"):
        assert f"{prefix}experts/level0/ctr/row_entropy" in run.data.metrics
    history = client.get_metric_history(first_id, "train/ctr/loss")
    assert [point.step for point in history] == [10, 20, 25]
    artifacts = {artifact.path for artifact in client.list_artifacts(first_id)}
    assert artifacts == {"config.json", "leaks.json", "plan.json", "report.json", "report.html"}
    assert _config_of(client, first_id, tmp_path) == json.loads(result.folder.config.read_text())


def _config_of(client: Any, run_id: str, folder: Path) -> Any:
    target = folder / "artifacts"
    target.mkdir()
    path = Path(client.download_artifacts(run_id, "config.json", str(target)))
    found = json.loads(path.read_text())
    shutil.rmtree(target)
    return found
