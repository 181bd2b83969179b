"""Requests for a load hold what the model reads."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from recmoe.client import ServedModel
from recmoe.client.request import request_body
from recmoe.errors import DataError
from recmoe.ranking.values import to_arrow
from serving.bench.payloads import made_requests, requests_of_log

TYPES = [
    pa.bool_(), pa.int8(), pa.uint8(), pa.int16(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(),
    pa.string(), pa.large_string(), pa.decimal128(10, 2), pa.date32(), pa.date64(),
    pa.timestamp("us"), pa.timestamp("ns", tz="UTC"), pa.null(), pa.dictionary(pa.int32(), pa.string()),
    pa.list_(pa.int64()), pa.list_(pa.string()), pa.large_list(pa.float64()),
]  # fmt: skip


def served(**columns: dict[str, str]) -> ServedModel:
    return ServedModel(
        "shop", "1", "ab", "2026-01-31", [], {}, "ctr", {"user": {}, "context": {}, "item": {}, **columns}
    )


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_made_value_is_one_that_the_ranker_reads(kind: pa.DataType) -> None:
    model = served(item={"x": str(kind)})

    made = made_requests(model, num_requests=3, num_candidates=5, num_ids=10_000, seed=1)

    for request in made:
        values = [row["x"] for row in json.loads(request_body(**request))["candidates"]]
        assert len(to_arrow(values, kind, str)) == 5


def test_made_requests_have_every_column_and_differ_by_seed() -> None:
    model = served(user={"u": "string"}, context={"hour": "int64"}, item={"item_id": "int64", "price": "double"})
    size: dict[str, Any] = {"num_requests": 4, "num_candidates": 3, "num_ids": 50}

    made = made_requests(model, **size, seed=1)

    assert [sorted(request) for request in made] == [["candidates", "context", "user"]] * 4
    assert [set(row) for row in made[0]["candidates"]] == [{"item_id", "price"}] * 3
    assert all(0 <= row["item_id"] < 50 for request in made for row in request["candidates"])
    assert made == made_requests(model, **size, seed=1)
    assert made != made_requests(model, **size, seed=2)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Twenty rows; the price of an item is its number, so that a candidate is known to be one row's."""
    numbers = range(20)
    table = pa.table(
        {
            "user_id": [f"{number:03d}" for number in numbers],
            "tags": pa.array([["red", f"{number}"] for number in numbers], pa.list_(pa.string())),
            "hour": [None if number == 3 else number for number in numbers],
            "item_id": [f"{number}" for number in numbers],
            "price": [np.nan if number == 5 else float(number) for number in numbers],
            "click": [0] * 20,
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    pyarrow.csv.write_csv(table.drop_columns("tags"), tmp_path / "log.csv")
    return tmp_path


COLUMNS = {
    "user": {"user_id": "string", "tags": "list<item: string>", "age": "double"},
    "context": {"hour": "double"},
    "item": {"item_id": "string", "price": "double"},
}


@pytest.mark.parametrize("name", ["log.parquet", "log.csv"])
def test_requests_of_a_log_are_rows_of_it(log: Path, name: str) -> None:
    made = requests_of_log(served(**COLUMNS), [f"{log}/{name}"], num_requests=30, num_candidates=8, seed=0)

    assert len(made) == 30
    for request in made:
        number = int(request["user"]["user_id"])
        assert request["user"]["user_id"] == f"{number:03d}"
        assert request["user"].get("tags") == (["red", f"{number}"] if name == "log.parquet" else None)
        assert "age" not in request["user"]
        assert request["context"] == ({} if number == 3 else {"hour": number})
        assert len(request["candidates"]) == 8
        for row in request["candidates"]:
            assert isinstance(row["item_id"], str)
            assert row.get("price") == (None if row["item_id"] == "5" else float(row["item_id"]))
    assert len({row["item_id"] for request in made for row in request["candidates"]}) == 20


def test_log_of_something_else_is_told(log: Path) -> None:
    model = served(user={"user_id": "string"}, item={"song": "string"})

    with pytest.raises(
        DataError, match=r"log\.csv: no column is one of the model's item columns, which are song; give"
    ):
        requests_of_log(model, [f"{log}/log.csv"], num_requests=1, num_candidates=1, seed=0)


def test_values_are_drawn_whatever_was_drawn_elsewhere() -> None:
    model = served(item={"x": "int64"})
    random.seed(5)
    one = made_requests(model, num_requests=2, num_candidates=2, num_ids=99, seed=3)
    random.seed(6)

    assert made_requests(model, num_requests=2, num_candidates=2, num_ids=99, seed=3) == one
