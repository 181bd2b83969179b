"""Training day by day on a log whose items come and go."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipelines.daily import DailyResult, Day, find_days, train_daily
from pipelines.daily_plot import day_label
from recmoe.config import config_from_dict
from recmoe.errors import DataError, TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.claim import claimed
from recmoe.runs.evaluation import evaluate_bundle
from recmoe.runs.folder import RunFolder
from recmoe.runs.train import train_run
from recmoe.runs.worker import run_worker
from recmoe.training.runtime import start_runtime

NUM_DAYS = 6
NUM_ITEMS = 100
"""On the shelf at a time; a fifth is replaced every day."""
TURNOVER = NUM_ITEMS // 5
ROWS = 6000
CAPACITY = 130


def write_days(folder: Path, num_days: int = NUM_DAYS, *, rows: int = ROWS) -> list[Day]:
    """A click depends on the item, which only its id tells, and on the user."""
    random = np.random.default_rng(0)
    quality_I = random.normal(0.0, 1.5, NUM_ITEMS + TURNOVER * num_days)
    taste_U = random.normal(0.0, 0.5, 50)
    folder.mkdir(exist_ok=True)
    for day in range(num_days):
        item = day * TURNOVER + random.integers(0, NUM_ITEMS, rows)
        user = random.integers(0, 50, rows)
        chance = 1 / (1 + np.exp(1.0 - quality_I[item] - taste_U[user]))
        click = random.random(rows) < chance
        pq.write_table(
            pa.table({"user": user, "item": [f"i{i}" for i in item], "click": click.astype(np.int8)}),
            folder / f"day={day + 8}.parquet",
        )
    return find_days([str(folder / "day=*")])


def experiment(train: Path, *overrides: str) -> ExperimentConfig:
    dynamic = {"kind": "dynamic", "capacity": CAPACITY, "admit_after": 2, "half_life": 1.0}
    return config_from_dict(
        ExperimentConfig,
        {
            "name": "shelf",
            "data": {"train": str(train)},
            "inputs": {
                "width": 4,
                "features": {
                    "user": {"kind": "id", "side": "user"},
                    "item": {"kind": "id", "side": "item", "encoding": dynamic},
                },
            },
            "tasks": {"ctr": {"kind": "binary", "label": "click"}},
            "model": {"architecture": {"kind": "shared_bottom", "hidden": [16]}, "towers": {"hidden": []}},
            "tables": {"backend": "plain", "optimizer": {"kind": "rowwise_adagrad", "lr": 0.1}, "init_std": 0.1},
            "training": {"batch_size": 64, "device": "cpu", "precision": "fp32", "epochs": 2},
            "evaluation": {"num_resamples": 0, "baselines": []},
            "tracking": {"kind": "none"},
        },
        overrides=overrides,
    )


class Lights(RunFolder):
    """They go out in the middle of a day."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        super().log(step, values)
        if step >= 60:
            raise RuntimeError("the lights went out")


def launch(config: ExperimentConfig, folder: RunFolder, *, dark_day: str = "") -> None:
    runtime = start_runtime(device="cpu")
    torch.set_num_threads(1)
    run_worker(config, Lights(folder.root) if folder.root.name == dark_day else folder, runtime=runtime)


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> list[Day]:
    return write_days(tmp_path_factory.mktemp("log") / "days")


@pytest.fixture(scope="module")
def daily(days: list[Day], tmp_path_factory: pytest.TempPathFactory) -> DailyResult:
    root = tmp_path_factory.mktemp("daily") / "shelf"
    config = experiment(days[0].path)
    return train_daily(config, days, root, launch=launch, with_frozen=True, keep_days=2, is_quiet=True)


def test_days_are_in_the_order_of_their_numbers(days: list[Day]) -> None:
    assert [day.name for day in days] == ["day=8", "day=9", "day=10", "day=11", "day=12", "day=13"]


def test_yesterdays_model_beats_a_frozen_one_and_comes_near_to_all_days_retrained(
    daily: DailyResult, days: list[Day], tmp_path: Path
) -> None:
    last = daily.days[-1]
    # The same rows for the judge, a vocabulary with a row for every item there ever was.
    config = experiment(days[0].path, "inputs.features.item.encoding={kind: vocabulary}")
    data = config.data.model_copy(update={"train": tuple(str(day.path) for day in days[:-1])})
    retrained = train_run(
        config.model_copy(update={"data": data}), tmp_path / "all", resume=False, launch=launch, is_quiet=True
    )
    judged = evaluate_bundle(
        ModelBundle.load(retrained.folder.bundle), paths=[str(days[-1].path)], cache_dir=tmp_path
    ).report.values()

    name = "ctr.auc[all]"
    assert last.num_rows == ROWS
    print(last.metrics[name], last.frozen[name], judged[name], [d.metrics for d in daily.days])
    assert last.metrics[name] > last.frozen[name] + 0.05
    assert last.metrics[name] > judged[name] - 0.01


def test_table_keeps_its_size_while_ids_come_and_go(daily: DailyResult) -> None:
    updates = [day.ids["item"] for day in daily.days]
    tables = [RunFolder(Path(day.run)).warm_start_report() for day in daily.days[1:]]

    assert [update["number"] for update in updates] == [1, 2, 3, 4, 5, 6]
    assert updates[0]["rows_used"] == NUM_ITEMS
    assert [update["rows_used"] for update in updates[2:]] == [CAPACITY] * 4
    assert [update["evicted"] for update in updates] == [0, 0, 10, 20, 20, 20]
    assert [update["admitted"] for update in updates[1:]] == [TURNOVER] * 5
    assert all(update["unknown_share"] == 0 for update in updates)
    # Each day's newcomers begin anew, beside the rows that no one holds.
    assert [table["tables"]["item"]["new"] for table in tables if table] == [30, 20, 20, 20, 20]
    assert all(table["tables"]["item"]["has_optimizer"] for table in tables if table)


def test_everything_is_written_down_and_old_checkpoints_are_gone(daily: DailyResult) -> None:
    document = json.loads((daily.root / "daily.json").read_text())

    assert [day["day"] for day in document["days"]] == [day.day for day in daily.days]
    assert (daily.root / "daily.png").read_bytes()[1:4] == b"PNG"
    assert [RunFolder(Path(day.run)).checkpoints.exists() for day in daily.days] == [False] * 4 + [True] * 2
    assert all(RunFolder(Path(day.run)).bundle.exists() for day in daily.days)


def test_days_that_are_done_are_not_done_again(daily: DailyResult, days: list[Day]) -> None:
    def no_launch(_: ExperimentConfig, folder: RunFolder) -> None:
        raise AssertionError(folder.root)

    again = train_daily(experiment(days[0].path), days, daily.root, launch=no_launch, is_quiet=True)

    assert again.days == daily.days


def test_killed_day_is_gone_on_with_to_the_same_models(daily: DailyResult, days: list[Day], tmp_path: Path) -> None:
    config = experiment(days[0].path, "training.checkpoint_every=25")
    train = partial(train_daily, config, days[:3], tmp_path / "shelf", is_quiet=True)

    with pytest.raises(RuntimeError, match="the lights went out"):
        train(launch=partial(launch, dark_day="day=9"))
    done = json.loads((tmp_path / "shelf" / "daily.json").read_text())["days"]
    result = train(launch=launch)

    assert [day["day"] for day in done] == ["day=8"]
    assert [day.day for day in result.days] == ["day=8", "day=9", "day=10"]
    assert [day.metrics for day in result.days] == [day.metrics for day in daily.days[:3]]
    bundles = [ModelBundle.load(Path(one.days[2].run) / "bundle") for one in (daily, result)]
    weights = bundles[1].model.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in bundles[0].model.state_dict().items())


def test_day_before_those_that_are_trained_is_refused(daily: DailyResult, days: list[Day]) -> None:
    early = Day("day=7", days[0].path)

    with pytest.raises(TrainingError, match=r"day day=7 lies before day=13, which is trained already.*start afresh"):
        train_daily(experiment(days[0].path), [early, *days], daily.root, launch=launch, is_quiet=True)


def test_days_must_be_there_and_have_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "_SUCCESS").touch()
    with pytest.raises(DataError, match=r"no day matches .*; give a glob of files or folders"):
        find_days([str(tmp_path / "nothing*"), str(tmp_path / "*")])
    for folder in ("a", "b"):
        write_days(tmp_path / folder, 1, rows=3)
    with pytest.raises(DataError, match=r"a/day=8\.parquet and .*b/day=8\.parquet are both day day=8; give each day"):
        find_days([str(tmp_path / "*" / "*.parquet")])


def test_what_is_no_day_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_days(tmp_path, 2, rows=3)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "notes.md").touch()

    days = find_days([str(tmp_path / "*")])

    assert [day.name for day in days] == ["day=8", "day=9"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'notes.md'} is passed over: it is neither a folder nor a data file"
    ]


def test_days_with_too_few_rows_are_passed_over_and_later_days_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for day, rows in ((1, 70), (2, 0), (3, 63), (5, 70), (6, 10)):
        folder = tmp_path / "log" / f"day={day}"
        folder.mkdir(parents=True)
        (folder / "_SUCCESS").touch()
        table = pa.table({"user": np.arange(rows), "item": ["i1"] * rows, "click": np.arange(rows) % 2})
        pq.write_table(table, folder / "part.parquet")
    (tmp_path / "log" / "day=4").mkdir()
    (tmp_path / "log" / "day=7").mkdir()
    (tmp_path / "log" / "day=7" / "part.csv").touch()
    (tmp_path / "log" / "_SUCCESS").touch()
    config = experiment(tmp_path, "training.epochs=1")

    def run() -> DailyResult:
        return train_daily(
            config, find_days([str(tmp_path / "log" / "*")]), tmp_path / "daily", launch=launch, is_quiet=True
        )

    first = run()
    with_rows = pa.table({"user": np.arange(70), "item": ["i1"] * 70, "click": np.arange(70) % 2})
    for day in (3, 6):
        pq.write_table(with_rows, tmp_path / "log" / f"day={day}" / "part.parquet")
    second = run()

    assert [day.day for day in first.days] == ["day=1", "day=5"]
    assert first.passed_over == {
        "day=2": "it has no rows",
        "day=3": "it has 63 rows, fewer than the 64 of a step",
        "day=4": "it has no rows",
        "day=6": "it has 10 rows, fewer than the 64 of a step",
        "day=7": "it has no rows",
    }
    assert "day day=3 is passed over: it has 63 rows, fewer than the 64 of a step" in caplog.messages
    # A day that filled up late is trained on only while no later one is.
    assert [day.day for day in second.days] == ["day=1", "day=5", "day=6"]


def test_days_are_worked_on_by_one_process(daily: DailyResult, days: list[Day]) -> None:
    with claimed(daily.root), pytest.raises(TrainingError, match=r"shelf: process \d+ on host .* works on it since"):
        train_daily(experiment(days[0].path), days, daily.root, launch=launch, is_quiet=True)


def test_intervals_are_kept_and_drawn(days: list[Day], tmp_path: Path) -> None:
    config = experiment(days[0].path, "evaluation.num_resamples=20", "training.epochs=1", "training.max_steps=5")

    result = train_daily(config, days[:2], tmp_path, launch=launch, is_quiet=True)
    again = train_daily(config, days[:2], tmp_path, launch=launch, is_quiet=True)

    low, high = result.days[1].intervals["ctr.auc[all]"]
    assert low <= result.days[1].metrics["ctr.auc[all]"] <= high
    assert again.days == result.days
    assert (tmp_path / "daily.png").exists()


@pytest.mark.parametrize(
    ("name", "label"),
    [("day=8", "8"), ("day=2026-11-01", "2026-11-01"), ("shop_20261101_v2", "20261101"), ("monday", "monday")],
)
def test_tick_says_the_day(name: str, label: str) -> None:
    assert day_label(name) == label
