"""Which rows are for training, validation and test, as the user says."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.errors import DataError
from recmoe.onboarding.starter import StarterConfig

MakeLog = Callable[..., pa.Table]
Start = Callable[..., StarterConfig]


def values(starter: StarterConfig, column: str) -> list[set[object]]:
    assert starter.path is not None
    folder = starter.path.parent
    return [
        set(pq.read_table(folder / f"{split}.parquet")[column].to_pylist()) for split in ("train", "validation", "test")
    ]


@pytest.mark.parametrize(("by", "column"), [("user", "user_id"), ("list", "request_id")])
def test_users_and_lists_stay_together(plain_log: MakeLog, start: Start, by: str, column: str) -> None:
    starter = start(plain_log(), split_by=by)

    train, validation, test = values(starter, column)
    assert not train & validation | train & test | validation & test
    assert f"Split by {column}, at random" in starter.text


def test_random_split_leaves_the_time_aside(plain_log: MakeLog, start: Start) -> None:
    starter = start(plain_log(), split_by="random")

    assert "Split by rows, at random" in starter.text
    assert (
        starter.roles.left_out["ts"]
        == "the time of the row: it only grows, so it is no feature; weekday or hour would be"
    )


@pytest.mark.parametrize("by", ["time", "random"])
def test_shares_are_those_asked_for(plain_log: MakeLog, start: Start, by: str) -> None:
    starter = start(plain_log(), split_by=by, shares=(0.5, 0.2, 0.3))

    assert starter.num_rows["train"] == pytest.approx(1000, abs=80)
    assert starter.num_rows["test"] == pytest.approx(600, abs=80)


@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.2), (0.9, 0.1, 0.0)])
def test_shares_that_are_none_are_refused(plain_log: MakeLog, start: Start, shares: tuple[float, float, float]) -> None:
    with pytest.raises(DataError, match=r"--shares: three parts above 0 that sum to 1 are needed, .* got \(0\."):
        start(plain_log(), shares=shares)


@pytest.mark.parametrize(
    ("by", "without", "message"),
    [
        ("time", {"ts": None}, "--split time: no column with the time of the row was found"),
        (
            "time",
            {"ts": [1_750_000_000, 1_750_080_000] * 1000},
            "--split time: ts is too coarse to cut off the last 10%",
        ),
        ("list", {"request_id": None}, "--split list: no column that names the list of a row was found"),
        ("user", {"user_id": None}, "--split user: no column that names the user was found"),
    ],
)
def test_split_by_what_the_log_lacks_is_refused(
    plain_log: MakeLog, start: Start, by: str, without: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        start(plain_log(**without), split_by=by)
