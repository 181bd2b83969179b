"""init says in words what a log lacks and what to do, and writes nothing that training could not read."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.errors import DataError
from recmoe.onboarding.starter import StarterConfig, starter_config

NUM_ROWS = 2000

MakeLog = Callable[..., pa.Table]
Start = Callable[..., StarterConfig]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("behavior", ["pv", "cart", "fav", "buy"]),
        ("event", ["view", "addtocart", "transaction"]),
        ("c4", ["pv", "buy"]),
    ],
)
def test_log_of_events_is_recognised(start: Start, name: str, values: list[str]) -> None:
    rng = np.random.default_rng(0)
    events = np.array(values)[rng.integers(0, len(values), NUM_ROWS)]
    log = {"user": rng.integers(0, 50, NUM_ROWS), "item": rng.integers(0, 90, NUM_ROWS), name: events, "size": 1.5}

    with pytest.raises(DataError, match=f"a log of events: {name} says what happened .*pv|view.* needs a row per user"):
        start(pa.table({**log, "size": rng.random(NUM_ROWS)}))


def test_first_row_taken_for_names_is_noticed(start: Start) -> None:
    rng = np.random.default_rng(0)
    log = {str(name): rng.integers(0, 90, NUM_ROWS) for name in (1, 2268318, 1511544070)}

    with pytest.raises(DataError, match=r"The names look like values: does the first line of the file hold no names\?"):
        start(pa.table(log))


def test_one_column_of_everything_is_noticed(start: Start) -> None:
    log = pa.table({"user;item;click": [f"{row};{row % 7};{row % 2}" for row in range(NUM_ROWS)]})

    with pytest.raises(DataError, match=r"All of a row is in one column: is its separator another one\?"):
        start(log)


def test_what_training_could_not_read_is_not_written(plain_log: MakeLog, tmp_path: Path) -> None:
    pq.write_table(plain_log(), tmp_path / "log.parquet")

    def refuse(config: Path) -> None:
        raise DataError(f"{config.parent / 'train.parquet'}: column price is wrong")

    with pytest.raises(DataError, match=r"nothing was written: .*out/train\.parquet: column price is wrong"):
        starter_config([tmp_path / "log.parquet"], output_dir=tmp_path / "out", verify=refuse)

    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


def test_stopped_init_leaves_nothing(plain_log: MakeLog, tmp_path: Path) -> None:
    pq.write_table(pa.concat_tables([plain_log()] * 300), tmp_path / "log.parquet")
    python = [sys.executable, "-c", "from recmoe.cli.app import main; main()"]
    command = [*python, "init", str(tmp_path / "log.parquet"), "--to", str(tmp_path / "out")]

    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.unfinished-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert process.returncode == 128 + signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]
