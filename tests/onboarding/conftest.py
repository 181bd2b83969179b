"""Logs as people have them, and what init makes of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.experiment import load_experiment
from recmoe.onboarding.starter import StarterConfig, starter_config
from recmoe.runs.check import check_data

NUM_ROWS = 2000


@pytest.fixture
def plain_log() -> Callable[..., pa.Table]:
    """Makes lists of five with a click and a purchase within it; columns are added, replaced, or left out by None."""

    def make(**columns: object) -> pa.Table:
        rng = np.random.default_rng(0)
        request = np.arange(NUM_ROWS) // 5
        click = rng.random(NUM_ROWS) < 0.3
        item = rng.integers(0, 60, NUM_ROWS)
        log = {
            "request_id": request,
            "user_id": rng.integers(0, 80, NUM_ROWS // 5)[request],
            "item_id": item,
            "device": np.array(["phone", "desktop"])[rng.integers(0, 2, NUM_ROWS // 5)[request]],
            "price": np.round(np.exp(item / 20) + 1, 2),
            "ts": 1_750_000_000 + request * 60,
            "click": click.astype(np.int64),
            "purchase": (click & (rng.random(NUM_ROWS) < 0.3)).astype(np.int64),
        }
        return pa.table({name: column for name, column in {**log, **columns}.items() if column is not None})

    return make


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., StarterConfig]:
    """What init writes of a log; every row of it can be read as training would."""

    def verify(config: Path) -> None:
        check_data(load_experiment(config), cache_dir=tmp_path / "cache")

    def run(table: pa.Table, **options: object) -> StarterConfig:
        pq.write_table(table, tmp_path / "log.parquet")
        return starter_config([tmp_path / "log.parquet"], output_dir=tmp_path / "out", verify=verify, **options)  # type: ignore[arg-type]

    return run
