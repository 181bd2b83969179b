"""A domain and a task from few rows by the command line, and the version that comes out of it."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from recmoe.cli import app
from recmoe.export.bundle import ModelBundle

pytestmark = pytest.mark.slow

SMALL = (
    "training.epochs=1",
    "training.batch_size=256",
    "tables.backend=plain",
    "evaluation.num_resamples=20",
    "evaluation.baselines=[]",
    "tracking={kind: none}",
    "model.architecture={kind: mmoe, num_experts: 2, expert_hidden: [16], dropout: 0.1}",
)


def recmoe(folder: Path, *arguments: str) -> str:
    """Standard output of a command, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_start_is_found_and_a_domain_and_a_task_are_learned_from_few_rows(tmp_path: Path) -> None:
    recmoe(tmp_path, "data", "synthetic", "--to", "log", "--rows", "2000")
    recmoe(tmp_path, "train", "log/config.yaml", *SMALL, "--run-dir", "run")
    few = pq.read_table(tmp_path / "log/test.parquet").slice(0, 150)
    dear = np.asarray(few["price"]) > np.median(np.asarray(few["price"]))
    pq.write_table(few.append_column("dear", pa.array(dear.astype(np.int8))), tmp_path / "few.parquet")

    found = recmoe(tmp_path, "metalearn", "run", "--domain", "device", "--to", "start", "adaptation.meta.rounds=2")
    printed = recmoe(tmp_path, "adapt", "start", "--data", "few.parquet", "--to", "adapted", "--all")
    task = ["adapt", "start", "--data", "few.parquet", "--to", "dear", "tasks.dear={kind: binary, label: dear}"]
    described = json.loads(recmoe(tmp_path, *task, "--steps", "2", "--json"))

    assert "3 domains of device, 1,600 rows" in found
    assert "metalearn from run (digest" in found
    assert "next     recmoe adapt start --data FEW_ROWS --to FOLDER" in found
    assert "steps on 150 rows, chosen on rows held back" in printed
    assert "mean loss of rows held back:" in printed
    assert "ctr.logloss[all]" in printed
    assert "adapt from start (digest" in printed
    assert "next     recmoe register adapted" in printed
    assert (described["rows"], described["steps"], described["is_chosen"]) == (150, 2, False)
    assert len(described["losses"]) == 3
    assert "dear.auc[all]" in described["here"]["metrics_after"]
    assert ModelBundle.load(tmp_path / "dear").tasks.names[-1] == "dear"
