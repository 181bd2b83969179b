"""The main job as a person runs it, on a small log: twice, in a folder of its own."""

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from pipelines.demo import main

pytestmark = [
    pytest.mark.slow,
    # MLflow's own code, at first use.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

SMALL = ("training.epochs=1", "training.batch_size=128", "evaluation.num_resamples=20", "tracking.system_metrics=false")
TIMEOUT_S = 300


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    names = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "COLUMNS")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    settings = [part for value in SMALL for part in ("--set", value)]
    return subprocess.run(
        [sys.executable, "-m", "pipelines.demo", "--rows", "3000", *settings, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def section(output: str, number: int) -> list[str]:
    """The lines below a numbered heading."""
    return output.split(f"\n{number}. ")[1].split(f"\n{number + 1}. ")[0].strip().splitlines()[1:]


def test_demo_goes_from_a_log_to_a_ranked_list_and_a_second_time_reuses_its_runs(tmp_path: Path) -> None:
    arguments = ("--architectures", "shared_bottom", "mmoe", "--workers", "1")

    first = demo(tmp_path, *arguments)
    second = demo(tmp_path, *arguments)

    assert first.returncode == 0, first.stderr
    assert second.returncode == 0, second.stderr
    headings = [line for line in first.stdout.splitlines() if line[:2] in ("1.", "2.", "3.", "4.", "5.", "6.")]
    assert [line.split(maxsplit=3)[1:3] for line in headings] == [
        ["the", "log"],
        ["training", "shared_bottom,"],
        ["test", "split,"],
        ["registering", headings[3].split()[2]],
        ["serving", "models:/synthetic@champion"],
        ["where", "things"],
    ]

    table = section(first.stdout, 3)
    assert table[0].split() == ["task.metric[space]", "shared_bottom", "mmoe", "best", "reachable"]
    assert {"ctr.auc[all]", "cvr.auc[click]", "ctcvr.auc[all]", "samples/s"} < {
        line.split()[0] for line in table if line
    }
    assert "…" not in first.stdout
    ctr = next(line for line in table if line.startswith("ctr.auc[all]"))
    assert ctr.count("[0.") == 2

    ranked = [line.split() for line in section(first.stdout, 5)]
    items = [line for line in ranked if line and line[0].isdigit()]
    scores = [float(line[2]) for line in items]
    assert [int(line[0]) for line in items] == list(range(1, 11))
    assert scores == sorted(scores, reverse=True)

    places = dict(line.split(maxsplit=1) for line in section(first.stdout, 6))
    assert (tmp_path / places["report"]).exists()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    assert client.get_model_version_by_alias("synthetic", "champion").run_id is not None

    assert section(second.stdout, 3) == table
    assert [line for line in section(second.stdout, 5) if "ms in the ranker" not in line] == [
        line for line in section(first.stdout, 5) if "ms in the ranker" not in line
    ]
    assert "step" not in second.stderr


def test_demo_on_real_data_says_which_files_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    status = main(["--data", "census"])

    assert status == 1
    assert capsys.readouterr().err == "error: the files of census are needed: make demo DATA=census FROM=folder\n"
