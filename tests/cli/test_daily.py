"""``recmoe daily`` and ``recmoe train --warm-start``, in processes of their own as a user starts them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipelines.daily import DailyResult, DayResult
from recmoe.cli import app
from recmoe.cli.daily import _print_days
from recmoe.errors import DataError, RegistryError
from recmoe.export.manifest import Manifest
from recmoe.runs.source import load_ranker

TIMEOUT_S = 300
DYNAMIC = "{kind: dynamic, capacity: 6, admit_after: 2, half_life: 1}"
CONFIG = """
name: shelf
data: {train: days/day=1.parquet}
inputs:
  width: 4
  features:
    user: {kind: id, side: user}
    item: {kind: id, encoding: DYNAMIC}
tasks:
  ctr: {kind: binary, label: click}
model: {architecture: {kind: shared_bottom, hidden: [4]}}
tables: {backend: plain}
training: {batch_size: 32, device: cpu}
evaluation: {num_resamples: 0}
tracking: {system_metrics: false}
""".replace("DYNAMIC", DYNAMIC)


def recmoe(folder: Path, *arguments: str) -> str:
    process = run(folder, *arguments)
    assert process.returncode == 0, process.stderr
    return process.stdout


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return subprocess.run(
        [sys.executable, "-c", "from recmoe.cli import main; main()", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


@pytest.mark.slow
def test_days_are_trained_registered_and_gone_on_from(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "days").mkdir()
    for day in (1, 2, 3):
        table = pa.table(
            {
                "user": random.integers(0, 9, 200),
                "item": random.integers(0, 5, 200) + 2 * day,
                "click": random.integers(0, 2, 200),
            }
        )
        pq.write_table(table, tmp_path / "days" / f"day={day}.parquet")
    (tmp_path / "config.yaml").write_text(CONFIG)
    daily = ("daily", "config.yaml", "--days", "days/day=*", "--run-dir", "runs/daily", "--register", "shelf")

    text = recmoe(tmp_path, *daily, "--frozen")
    again = json.loads(recmoe(tmp_path, *daily, "--json"))
    warm = recmoe(tmp_path, "train", "config.yaml", "--warm-start", "models:/shelf/3", "--run-dir", "runs/next")

    lines = text.splitlines()
    assert lines[0].split()[:3] == ["day", "rows", "ctr.auc[all]"]
    assert [line.split()[0] for line in lines[1:4]] == ["day=1", "day=2", "day=3"]
    assert "wrote runs/daily/daily.json and runs/daily/daily.png" in text
    assert "newest model: runs/daily/days/day=3, registered as version 3" in text
    assert [day["version"] for day in again["days"]] == ["1", "2", "3"]
    assert [day["ids"]["item"]["rows_used"] for day in again["days"]] == [5, 6, 6]
    assert "went on from models:/shelf/3" in warm
    assert "dense weights: " in warm
    assert "optimizer state: no" in warm


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
def test_days_are_sent_as_what_differs_from_the_champion(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "days").mkdir()
    (tmp_path / "config.yaml").write_text(CONFIG.replace(DYNAMIC, "{kind: hash, num_buckets: 100_000}"))
    daily = ("daily", "config.yaml", "--days", "days/day=*", "--run-dir", "runs/daily", "--register", "shelf")

    told = []
    for day in (1, 2):
        table = pa.table(
            {
                "user": random.integers(0, 9, 200),
                "item": random.integers(0, 500, 200) + 100 * day,
                "click": random.integers(0, 2, 200),
            }
        )
        pq.write_table(table, tmp_path / "days" / f"day={day}.parquet")
        process = run(tmp_path, *daily, "--delta-of", "champion")
        assert process.returncode == 0, process.stderr
        told += re.findall(r"^(runs/daily/days/day=\d): sent ([\d,]+) bytes, (.+)$", process.stderr, re.MULTILINE)
        if day == 1:
            recmoe(tmp_path, "promote", "shelf", "1")
    loaded = load_ranker("models:/shelf/2", runs=tmp_path / "runs").info.digest

    whole, first = [int(num_bytes.replace(",", "")) for _, num_bytes, _ in told]
    assert [run for run, _, _ in told] == [f"runs/daily/days/day={day}" for day in (1, 2)]
    assert told[0][2] == "whole: shelf has no version champion yet"
    assert told[1][2].startswith("what differs from version 1 of model shelf (whole: ")
    assert first < 0.05 * whole
    assert loaded == Manifest.read(tmp_path / "runs" / "daily" / "days" / "day=2" / "bundle").digest


def test_delta_of_needs_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)

    with pytest.raises(
        RegistryError, match=r"^--delta-of says how versions are registered; name their model by --regist"
    ):
        CliRunner().invoke(
            app,
            ["daily", str(tmp_path / "config.yaml"), "--days", "days/*", "--delta-of", "champion"],
            catch_exceptions=False,
        )


def test_days_that_the_shell_has_found_are_days(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    days = [tmp_path / "a/day=1", tmp_path / "b/day=1"]
    for day in days:
        day.mkdir(parents=True)

    with pytest.raises(DataError, match=f"^{days[0]} and {days[1]} are both day day=1; give each day one name$"):
        CliRunner().invoke(
            app,
            ["daily", str(tmp_path / "config.yaml"), "--days", *map(str, days), "training.batch_size=8"],
            catch_exceptions=False,
        )


def test_table_of_days_says_why_the_first_has_no_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (
        DayResult(name, f"runs/{name}", num_rows, metrics, frozen={}, ids={}, samples_per_s=1.0)
        for name, num_rows, metrics in (("day=2026-03-01", 0, {}), ("day=2026-03-02", 90, {"ctr.auc[all]": 0.75}))
    )

    _print_days(DailyResult(tmp_path, days=[first, second]))

    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:3]] == [["day=2026-03-01", "0", "–"], ["day=2026-03-02", "90", "0.7500"]]
    assert lines[3] == "–: no model before day=2026-03-01 to measure on it"


def test_daily_without_days_says_how_to_name_them(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["daily", str(tmp_path / "config.yaml")])

    assert str(result.exception) == "no days are given; name them by --days 'log/day=*'"
