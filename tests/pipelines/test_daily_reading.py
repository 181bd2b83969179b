"""A day that cannot be read is gone on with as soon as the config says how to read it."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.daily import DailyResult, find_days, train_daily
from recmoe.config import config_from_dict
from recmoe.errors import RecmoeError
from recmoe.experiment import ExperimentConfig
from recmoe.runs.folder import RunFolder
from recmoe.runs.worker import run_worker
from recmoe.training.runtime import start_runtime

ROWS = 80


def launch(config: ExperimentConfig, folder: RunFolder) -> None:
    run_worker(config, folder, runtime=start_runtime(device="cpu"))


def write_day(folder: Path, day: int, odd: str | None = None) -> None:
    """A file of users, prices and clicks; its last line is odd."""
    rng = np.random.default_rng(day)
    lines = [f"u{rng.integers(9)},{rng.random():.2f},{row % 2}" for row in range(ROWS)]
    folder.mkdir(exist_ok=True)
    path = folder / f"day={day}.csv"
    path.write_text("\n".join(["user,price,click", *lines, *([] if odd is None else [odd])]), encoding="windows-1252")


def train(folder: Path, *overrides: str) -> DailyResult:
    config = config_from_dict(
        ExperimentConfig,
        {
            "name": "shelf",
            "data": {"train": str(folder / "day=*")},
            "inputs": {"width": 4, "features": {"user": {"kind": "id", "side": "user"}, "price": {"kind": "numeric"}}},
            "tasks": {"ctr": {"kind": "binary", "label": "click"}},
            "model": {"architecture": {"kind": "shared_bottom", "hidden": [4]}, "towers": {"hidden": []}},
            "tables": {"backend": "plain"},
            "training": {"batch_size": 32, "device": "cpu", "precision": "fp32"},
            "evaluation": {"num_resamples": 0, "baselines": []},
            "tracking": {"kind": "none"},
        },
        overrides=overrides,
    )
    return train_daily(config, find_days([str(folder / "day=*")]), folder / "daily", launch=launch, is_quiet=True)


@pytest.mark.parametrize(
    ("odd", "message", "override", "rows"),
    [
        ("u1,void,1", "expected a number, found string", "data.csv.null_values=[void]", ROWS + 1),
        ("u1,1.5", "Expected 3 columns, got 2", "data.on_error=skip", ROWS),
        ("ü1,1.5,1", "the text is not UTF-8", "data.csv.encoding=windows-1252", ROWS + 1),
    ],
)
def test_stopped_day_is_measured_and_trained_as_the_config_says_now(
    tmp_path: Path, odd: str, message: str, override: str, rows: int
) -> None:
    write_day(tmp_path, 1)
    write_day(tmp_path, 2, odd)

    with pytest.raises(RecmoeError, match=message):
        train(tmp_path)
    result = train(tmp_path, override)

    assert [(day.day, day.num_rows) for day in result.days] == [("day=1", 0), ("day=2", rows)]
