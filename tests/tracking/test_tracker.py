"""Where a run is recorded is a matter of its config; MLflow is loaded by those who ask for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from recmoe.tracking import NullTracker, TrackingConfig, metric_name


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("cvr.auc[click]", "val/cvr/auc.click"),
        ("ctr.ndcg@10[all]", "val/ctr/ndcg_10.all"),
        ("点击.auc[all]", "val/点击/auc.all"),
        ("🙂.auc[all]", "val/_/auc.all"),
        ("loss", "val/loss"),
    ],
)
def test_metric_names_are_written_as_mlflow_allows(metric: str, name: str) -> None:
    assert metric_name("val", metric) == name


def test_no_tracking_records_nothing(tmp_path: Path) -> None:
    tracker = TrackingConfig(kind="none").build(run_name="run", folder=tmp_path)

    tracker.log_config({"seed": 1})
    tracker.log_metrics({"train/loss": 1.0}, step=1)
    tracker.log_file(tmp_path)
    tracker.log_text("text", name="plan.json")
    tracker.set_tags({"a": "b"})
    tracker.finish()

    assert isinstance(tracker, NullTracker)
    assert tracker.run_id is None
    assert list(tmp_path.iterdir()) == []


def test_importing_tracking_does_not_load_mlflow() -> None:
    code = "import sys, recmoe.tracking; sys.exit('mlflow' in sys.modules)"

    finished = subprocess.run([sys.executable, "-c", code], check=False)

    assert finished.returncode == 0
