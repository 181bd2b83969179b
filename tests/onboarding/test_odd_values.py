"""init on values that other tools lose or trip over: large integers, clocks, text times, names, infinities."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from recmoe.experiment import ExperimentConfig, load_experiment
from recmoe.onboarding.starter import StarterConfig

NUM_ROWS = 2000
BIG = 1_460_000_000_000_000_007

MakeLog = Callable[..., pa.Table]
Start = Callable[..., StarterConfig]


def config_of(starter: StarterConfig) -> ExperimentConfig:
    assert starter.path is not None
    return load_experiment(starter.path)


def kinds_of(starter: StarterConfig) -> dict[str, str]:
    return {feature.column: feature.kind for feature in starter.roles.features}


def test_integers_beyond_the_exact_floats_are_ids_and_times(plain_log: MakeLog, start: Start) -> None:
    log = plain_log()
    ids = pc.add(log["user_id"], BIG)
    unsigned = pa.array([2**64 - 1 - number for number in log["item_id"].to_pylist()], pa.uint64())
    clock = pc.multiply(log["ts"], 10**9)

    starter = start(plain_log(user_id=ids, item_id=unsigned, ts=clock))

    assert (starter.roles.user, starter.roles.item, starter.roles.time) == ("user_id", "item_id", "ts")
    assert "Split by ts" in starter.text
    assert "# 80 values" in next(line for line in starter.text.splitlines() if line.startswith("    user_id:"))
    assert config_of(starter).inputs.item == "item_id"


@pytest.mark.parametrize("type_", [pa.float16(), pa.decimal128(12, 2), pa.uint64()], ids=str)
def test_numbers_of_rare_types_are_numbers(plain_log: MakeLog, start: Start, type_: pa.DataType) -> None:
    price = pc.round(plain_log()["price"], ndigits=0)

    starter = start(plain_log(price=price.cast(type_)))

    assert kinds_of(starter)["price"] == "numeric"


def test_ids_that_pandas_made_floats_are_ids(plain_log: MakeLog, start: Start) -> None:
    has_gap = pa.array(np.arange(NUM_ROWS) % 50 == 7)
    log = plain_log()
    gaps = {
        name: pc.if_else(has_gap, None, log[name].cast(pa.float64())) for name in ("user_id", "item_id", "request_id")
    }

    starter = start(plain_log(**gaps))

    assert (starter.roles.user, starter.roles.item, starter.roles.group) == ("user_id", "item_id", "request_id")
    assert (kinds_of(starter)["user_id"], kinds_of(starter)["item_id"]) == ("id", "id")


@pytest.mark.parametrize(
    "written",
    ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S UTC", "%Y-%m-%dT%H:%M:%S+02:00", "%Y-%m-%d %H:%M:%S +0000"],
)
def test_text_times_with_a_zone_are_times(plain_log: MakeLog, start: Start, written: str) -> None:
    times = pc.strftime(plain_log()["ts"].cast(pa.timestamp("s")), format=written)

    starter = start(plain_log(ts=times))

    assert starter.roles.time == "ts"
    assert "Split by ts" in starter.text
    assert "ts" not in kinds_of(starter)


@pytest.mark.parametrize("written", ["%Y%m%d", "%Y%m%d%H", "%y%m%d%H", "%Y%m%d%H%M%S"])
def test_dates_written_as_numbers_are_times(plain_log: MakeLog, start: Start, written: str) -> None:
    times = pa.array(np.arange(NUM_ROWS) * 1800 + 1_750_000_000, pa.timestamp("s"))

    starter = start(plain_log(ts=None, hour=pc.strftime(times, format=written).cast(pa.int64())))

    assert starter.roles.time == "hour"
    assert "Split by hour" in starter.text
    assert "hour" not in kinds_of(starter)


@pytest.mark.parametrize("factor", [10**3, 10**6, 10**9])
def test_clocks_of_any_unit_are_times(plain_log: MakeLog, start: Start, factor: int) -> None:
    starter = start(plain_log(ts=pc.multiply(plain_log()["ts"], factor)))

    assert starter.roles.time == "ts"


def test_number_that_begins_late_is_left_out(plain_log: MakeLog, start: Start) -> None:
    late = pa.array(np.arange(NUM_ROWS) / 7, mask=np.arange(NUM_ROWS) < 0.9 * NUM_ROWS)

    starter = start(plain_log(fee=late))

    assert starter.roles.left_out["fee"] == "no value among the training rows: it begins later in the log"


@pytest.mark.parametrize("extreme", [np.inf, -np.inf, 1e300, -1e300])
@pytest.mark.parametrize("row", [3, NUM_ROWS - 1])
def test_one_extreme_number_is_clipped(plain_log: MakeLog, start: Start, extreme: float, row: int) -> None:
    fee = np.arange(NUM_ROWS) % 97 / 7
    fee[row] = extreme

    starter = start(plain_log(fee=fee))

    (feature,) = (feature for feature in starter.roles.features if feature.column == "fee")
    assert feature.clip == (0.0, pytest.approx(96 / 7))


NAMES = [
    "🙂 price",
    "a\nb",
    'say "hi"',
    "it's: #1",
    "true",
    "no",
    "1e3",
    "${HOME}",
    "$${x}",
    "back\\slash",
    "\u2028line",
    "\x85next",
    "{a: b}",
    "- x",
    "класс",
    "class",
]


def test_features_and_groups_of_any_name_read_back_exactly(plain_log: MakeLog, start: Start) -> None:
    rng = np.random.default_rng(1)
    columns = {name: rng.random(NUM_ROWS) for name in NAMES}
    log = plain_log(**columns)
    log = log.rename_columns([{"item_id": "item\n🙂 id"}.get(name, name) for name in log.column_names])

    config = config_of(start(log))

    assert {feature.column or name for name, feature in config.inputs.features.items()} >= set(NAMES)
    assert config.inputs.item == "item\n🙂 id"


LABELS = [("点击", "购买"), ("class", "log"), ("a b", "a_b"), ("क्लिक", "खरीद"), *itertools.pairwise(NAMES)]


@pytest.mark.parametrize(("click", "buy"), LABELS)
def test_tasks_of_any_name_are_written_and_read(plain_log: MakeLog, start: Start, click: str, buy: str) -> None:
    log = plain_log()
    names = [{"click": click, "purchase": buy}.get(name, name) for name in log.column_names]

    config = config_of(start(log.rename_columns(names)))

    labels = {task.label: task for task in config.tasks.values() if task.kind == "binary"}
    assert set(labels) == {click, buy}
    assert labels[buy].space is not None
    assert any(task.kind == "product" for task in config.tasks.values())


def test_left_out_column_with_a_line_break_stays_in_its_comment(plain_log: MakeLog, start: Start) -> None:
    starter = start(plain_log(**{"a\nb: [": ["same"] * NUM_ROWS}))

    assert "  #   a\\nb: [: the same value in every row" in starter.text


def test_only_the_written_files_are_there(plain_log: MakeLog, start: Start, tmp_path: Path) -> None:
    start(plain_log())

    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["log.parquet", "out"]


def test_rows_without_a_list_do_not_move_what_is_the_same_within_lists(plain_log: MakeLog, start: Start) -> None:
    requests = [number if number % 2 else None for number in plain_log()["request_id"].to_pylist()]

    starter = start(plain_log(request_id=pa.array(requests, pa.int64())))

    assert {feature.column: feature.side for feature in starter.roles.features}["device"] == "context"
