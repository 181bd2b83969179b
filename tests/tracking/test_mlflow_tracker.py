"""A run in MLflow, in a SQLite file."""

import logging
from pathlib import Path

import pytest

from recmoe.errors import RegistryError
from recmoe.tracking import TrackingConfig
from recmoe.tracking.mlflow_store import MlflowStore

# SQLAlchemy's own news about MLflow's tables.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


def test_run_holds_config_curves_and_files(mlflow_folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<html>")
    tracker = TrackingConfig().build(run_name="first", folder=mlflow_folder)

    tracker.log_config({"seed": 1, "model": {"hidden": [8, 4], "gate": {}}})
    tracker.log_metrics({"train/loss": 0.5, "val/cvr/auc.click": 0.75}, step=10)
    tracker.log_metrics({"train/loss": 0.25}, step=20)
    tracker.log_file(page)
    tracker.log_text("{}", name="plan.json")
    tracker.set_tags({"kind": "test"})
    tracker.finish()

    assert tracker.run_id is not None
    client = MlflowStore.connect(None, folder=mlflow_folder).client
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "first"
    assert run.data.params == {"seed": "1", "model.hidden": "[8, 4]", "model.gate": "{}"}
    assert run.data.metrics == {"train/loss": 0.25, "val/cvr/auc.click": 0.75}
    assert [point.step for point in client.get_metric_history(tracker.run_id, "train/loss")] == [10, 20]
    assert run.data.tags["kind"] == "test"
    artifacts = {artifact.path for artifact in client.list_artifacts(tracker.run_id)}
    assert artifacts == {"config.json", "plan.json", "report.html"}
    assert (mlflow_folder / "artifacts").is_dir()


def test_run_inside_another_names_it(mlflow_folder: Path) -> None:
    config = TrackingConfig(system_metrics=False)
    whole = config.build(run_name="whole", folder=mlflow_folder)

    part = config.build(run_name="part", folder=mlflow_folder, parent_id=whole.run_id)

    assert part.run_id is not None
    client = MlflowStore.connect(None, folder=mlflow_folder).client
    assert client.get_run(part.run_id).data.tags["mlflow.parentRunId"] == whole.run_id
    part.finish()
    whole.finish()


def test_resumed_run_goes_on_under_its_id(mlflow_folder: Path) -> None:
    config = TrackingConfig(system_metrics=False)
    first = config.build(run_name="run", folder=mlflow_folder)
    first.log_config({"workers": 1})
    first.log_metrics({"train/loss": 2.0}, step=1)
    first.finish("killed")

    second = config.build(run_name="run", folder=mlflow_folder, run_id=first.run_id)
    second.log_config({"workers": 2, "added": True})
    second.log_metrics({"train/loss": 1.0}, step=2)
    second.finish()

    assert second.run_id == first.run_id is not None
    client = MlflowStore.connect(None, folder=mlflow_folder).client
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"workers": "1", "added": "true"}
    assert [point.step for point in client.get_metric_history(first.run_id, "train/loss")] == [1, 2]


def test_unknown_run_is_refused(mlflow_folder: Path) -> None:
    with pytest.raises(RegistryError, match=r"MLflow at sqlite:.*Run with id=nope not found"):
        TrackingConfig().build(run_name="run", folder=mlflow_folder, run_id="nope")


def test_store_that_fails_later_is_warned_of_once(mlflow_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = TrackingConfig(system_metrics=False).build(run_name="run", folder=mlflow_folder)
    MlflowStore.connect(None, folder=mlflow_folder).client.delete_run(tracker.run_id)

    with caplog.at_level(logging.WARNING, logger="recmoe"):
        tracker.set_tags({"a": "b"})
        tracker.set_tags({"c": "d"})

    assert len(caplog.records) == 1
    assert "must be in the 'active' state" in caplog.text
    assert "the run goes on, and its folder still gets everything" in caplog.text
