"""The road from a log to a ranked list by the command line alone; training and serving in their own processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from recmoe.cli import app
from recmoe.errors import RecmoeError

pytestmark = [
    pytest.mark.slow,
    # MLflow's own code, at first use.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

SMALL = (
    "training.epochs=1",
    "training.batch_size=256",
    "tables.backend=plain",
    "model.architecture={kind: mmoe, num_experts: 2, expert_hidden: [16]}",
    "evaluation.num_resamples=20",
    "evaluation.baselines=[]",
    "tracking.system_metrics=false",
)
TIMEOUT_S = 300


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return subprocess.Popen(
        [sys.executable, "-c", "from recmoe.cli import main; main()", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def recmoe(folder: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    """Standard output and errors of a command, in this process: heavy packages are imported once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        result = CliRunner().invoke(app, list(arguments))
    error = result.exception
    errors = f"error: {error}\n" if isinstance(error, RecmoeError) else result.stderr
    assert result.exit_code == code, f"{arguments}: {result.output}\n{''.join(traceback.format_exception(error))}"
    return result.stdout, errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a synthetic log, a finished run, and its model registered as champion."""
    folder = tmp_path_factory.mktemp("cli")
    recmoe(folder, "data", "synthetic", "--to", "log", "--rows", "4000")
    # A process that has had a process group once cannot have another.
    training = start(folder, "train", "log/config.yaml", *SMALL, "--run-dir", "runs/first")
    output, errors = training.communicate(timeout=TIMEOUT_S)
    assert training.returncode == 0, errors
    assert "bundle   runs/first/bundle" in output
    assert re.search(r"^speed    [\d,]+ samples/s, waited for data \d+\.\d%$", output, re.MULTILINE)
    assert re.search(r"^encoded rows: \d+\.\d MB in runs/first/cache/encoded$", errors, re.MULTILINE)
    recmoe(folder, "register", "runs/first", "--name", "shop")
    recmoe(folder, "promote", "shop", "1")
    return folder


@pytest.fixture(scope="module")
def request_file(folder: Path) -> Path:
    path = folder / "request.json"
    candidates = {"item_id": ["i1", "i2", "i3"], "price": [10, 20, 30]}
    body = {"user": {"user_id": "u1"}, "context": {"device": "mobile"}, "candidates": candidates}
    path.write_text(json.dumps(body))
    return path


def test_a_second_run_in_the_same_folder_is_refused_without_resume(folder: Path) -> None:
    _, errors = recmoe(folder, "train", "log/config.yaml", *SMALL, "--run-dir", "runs/first", code=1)

    assert errors == "error: runs/first holds a run already; go on with --resume or choose another --run-dir\n"


def test_prepare_leaves_an_encoder_and_says_how_to_go_on(folder: Path) -> None:
    text, _ = recmoe(folder, "prepare", "log/config.yaml", "--run-dir", "runs/prepared", "--memory", "500MB")
    output, _ = recmoe(folder, "prepare", "log/config.yaml", "--run-dir", "runs/prepared", "--json")

    values = json.loads(output)
    assert values["table_rows"]["user_id"] > 100
    assert f"encoder  runs/prepared/encoder, fingerprint {values['fingerprint'][:12]}\n" in text
    assert "next     recmoe train log/config.yaml --run-dir runs/prepared" in text
    assert json.loads((folder / "runs/prepared/config.json").read_text())["data"]["memory_gb"] == 0.5


def test_memory_without_a_unit_is_refused(folder: Path) -> None:
    _, errors = recmoe(folder, "prepare", "log/config.yaml", "--run-dir", "runs/x", "--memory", "500", code=2)

    assert "'500' is not a size; write it like 500MB or 8GB" in errors


@pytest.mark.parametrize("workers", ["0", "two", "4:2"])
def test_what_is_no_number_of_workers_is_refused(folder: Path, workers: str) -> None:
    _, errors = recmoe(folder, "train", "log/config.yaml", "--run-dir", "runs/x", "--workers", workers, code=2)

    told = re.sub(r"[│\s]+", " ", errors)
    assert f"'{workers}' is not a number of workers; write it like 4, or 2:8" in told


def test_a_finished_run_is_resumed_to_its_report(folder: Path) -> None:
    output, _ = recmoe(folder, "train", "log/config.yaml", *SMALL, "--run-dir", "runs/first", "--resume", "--json")

    values = json.loads(output)
    assert values["is_interrupted"] is False
    assert 0 < values["metrics"]["ctr.auc[all]"] < 1


def test_evaluation_repeats_the_report_of_the_training(folder: Path) -> None:
    output, _ = recmoe(folder, "evaluate", "runs/first", "--to", "again", "--json")

    trained = json.loads((folder / "runs/first/report.json").read_text())
    again = json.loads(output)
    assert [row["value"] for row in again["rows"]] == pytest.approx(
        [row["value"] for row in trained["rows"]], nan_ok=True
    )
    assert "<html" in (folder / "again/report.html").read_text()


def test_evaluation_reads_every_file_that_the_shell_has_found(folder: Path) -> None:
    table = pq.read_table(folder / "log/test.parquet")
    (folder / "other").mkdir()
    for name, part in (("a=1", table.slice(0, 100)), ("b=2", table.slice(100, 150))):
        pq.write_table(part, folder / f"other/{name}.parquet")
    files = ("other/a=1.parquet", "other/b=2.parquet")

    output, _ = recmoe(folder, "evaluate", "runs/first", "--data", *files, "evaluation.num_resamples=10", "--json")

    assert json.loads(output)["num_rows"] == 250


def test_evaluation_prints_a_line_per_task_beside_baselines_and_every_number_when_asked(folder: Path) -> None:
    fewer = ("evaluate", "runs/first", "evaluation.baselines=[logistic_regression]", "--baselines", "--to", "beside")

    short, _ = recmoe(folder, *fewer)
    long, _ = recmoe(folder, *fewer, "--all")

    assert "logistic regression" in short
    assert len(re.findall(r"^(?:ctr|cvr|ctcvr|watch)\.", short, re.MULTILINE)) == 4
    assert "logloss" not in short
    assert "logloss" in long


def test_evaluation_of_other_files_takes_overrides(folder: Path) -> None:
    arguments = ("models:/shop@champion", "evaluation.slices=[]", "--data", "log/validation.parquet", "--to", "other")

    output, _ = recmoe(folder, "evaluate", *arguments)

    assert "ctr" in output
    assert json.loads((folder / "other/report.json").read_text())["num_rows"] == 400


def test_predictions_of_the_exported_bundle_are_those_of_the_registered_model(folder: Path) -> None:
    recmoe(folder, "export", "runs/first", "--to", "bundle")
    data = ("--data", "log/test.parquet")

    recmoe(folder, "predict", "bundle", *data, "--to", "a.parquet", "--keep", "item_id", "--keep", "click")
    recmoe(folder, "predict", "models:/shop/1", *data, "--to", "b.parquet", "--score", "clicks")

    first, second = pq.read_table(folder / "a.parquet"), pq.read_table(folder / "b.parquet")
    assert first.column_names == ["item_id", "click", "ctr", "cvr", "ctcvr", "watch", "score"]
    assert second.column_names == ["request_id", "item_id", "ctr", "cvr", "ctcvr", "watch", "score"]
    assert first["ctr"].equals(second["ctr"])
    np.testing.assert_allclose(first["score"].to_numpy(), first["ctcvr"].to_numpy(), rtol=1e-6)
    np.testing.assert_allclose(second["score"].to_numpy(), second["ctr"].to_numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "p.csv"), "predictions are written as Parquet; name the file p.parquet"),
        (("--to", "p.parquet", "--keep", "pric"), "column 'pric' is missing; did you mean 'price'?"),
    ],
)
def test_predictions_that_cannot_be_written_say_why(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    _, errors = recmoe(folder, "predict", "runs/first", "--data", "log/test.parquet", *arguments, code=1)

    assert message in errors
    assert not (folder / "p.parquet").exists()


def test_export_refuses_a_folder_that_is_there(folder: Path) -> None:
    _, errors = recmoe(folder, "export", "runs/first", "--to", "log", code=1)

    assert errors == "error: log exists already; remove it or choose another --to\n"


def test_export_of_no_run_says_so(folder: Path) -> None:
    _, errors = recmoe(folder, "export", "log", "--to", "elsewhere", code=1)

    assert errors == "error: log holds no run; name the --run-dir of a training\n"


def test_rank_orders_the_candidates_for_people_and_programs(folder: Path, request_file: Path) -> None:
    text, warnings = recmoe(folder, "rank", str(request_file), "--model", "models:/shop@champion")
    output, _ = recmoe(folder, "rank", str(request_file), "--model", "runs/first", "--score", "clicks", "--json")

    values = json.loads(output)
    scores = [item["score"] for item in values["items"]]
    assert sorted(scores, reverse=True) == scores
    assert values["score"] == {"name": "clicks", "formula": "ctr"}
    assert text.splitlines()[0].split() == ["place", "item", "score", "ctr", "cvr", "ctcvr", "watch"]
    assert text.splitlines()[-1].startswith("shop version 1, score ")
    assert "warning: position: 3 missing" in warnings


def test_rank_of_a_missing_request_names_the_file(folder: Path) -> None:
    _, errors = recmoe(folder, "rank", "absent.json", "--model", "runs/first", code=1)

    assert errors == "error: body: cannot read absent.json: No such file or directory\n"


def test_served_scores_are_those_of_rank(folder: Path, request_file: Path) -> None:
    expected = json.loads(recmoe(folder, "rank", str(request_file), "--model", "runs/first", "--json")[0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    server = start(folder, "serve", "models:/shop@champion", "--port", str(port))
    try:
        assert server.stdout is not None
        said = server.stdout.readline()
        request = urllib.request.Request(
            f"{address}/v1/rank", data=request_file.read_bytes(), headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            served = json.loads(response.read())
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)

    assert [item["item_id"] for item in served["items"]] == [item["item_id"] for item in expected["items"]]
    assert [item["score"] for item in served["items"]] == pytest.approx([item["score"] for item in expected["items"]])
    assert served["model"]["version"] == "1"
    assert said == f"serving shop version 1 on {address}, API page at /docs\n"
    assert server.returncode == 0


def test_rollback_goes_back_to_the_version_before(folder: Path) -> None:
    recmoe(folder, "register", "runs/first", "--name", "shop")
    recmoe(folder, "promote", "shop", "2", "--note", "tried")

    output, _ = recmoe(folder, "rollback", "shop")

    assert output == "models:/shop@champion is version 1, was 2\n"


def test_interrupted_training_exits_with_130_and_says_how_to_go_on(folder: Path) -> None:
    small = [value for value in SMALL if not value.startswith("training.epochs")]
    process = start(folder, "train", "log/config.yaml", *small, "training.epochs=100000", "--run-dir", "runs/long")
    curves = folder / "runs/long/metrics.jsonl"
    deadline_s = time.monotonic() + TIMEOUT_S
    while not curves.exists() and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.2)

    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=TIMEOUT_S)

    assert process.returncode == 130, errors
    assert "go on with --resume --run-dir runs/long" in errors
    assert any((folder / "runs/long/checkpoints").iterdir())
    refused = recmoe(folder, "export", "runs/long", "--to", "elsewhere", code=1)[1]
    assert "the run in runs/long is interrupted and has no bundle yet; go on with --resume" in refused
