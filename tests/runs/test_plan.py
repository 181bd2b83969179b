import importlib.util
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.config import config_from_dict
from recmoe.errors import ShardingError
from recmoe.experiment import ExperimentConfig
from recmoe.runs.plan import plan_tables

needs_torchrec = pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="torchrec is not installed")


def config(folder: Path, **tables: object) -> ExperimentConfig:
    pq.write_table(
        pa.table({"user": ["a", "b", "c"], "item": ["x", "y", "x"], "click": [1, 0, 1]}), folder / "train.parquet"
    )
    return config_from_dict(
        ExperimentConfig,
        {
            "name": "small",
            "data": {"train": str(folder / "train.parquet")},
            "inputs": {"width": 8, "features": {"user": {"kind": "id", "side": "user"}, "item": {"kind": "id"}}},
            "tasks": {"ctr": {"kind": "binary", "label": "click"}},
            "model": {"architecture": {"kind": "shared_bottom", "hidden": [2]}, "towers": {"hidden": []}},
            "tables": tables,
            "training": {"device": "cpu"},
        },
    )


def test_plain_tables_stay_whole(tmp_path: Path) -> None:
    plan = plan_tables(config(tmp_path, backend="plain"), num_workers=1, cache_dir=tmp_path)

    assert [(row["table"], row["rows"], row["sharding"]) for row in plan.tables] == [
        ("user", 4, "whole"),
        ("item", 3, "whole"),
    ]
    # Rows of 8 floats.
    assert plan.num_bytes == (4 + 3) * 8 * 4
    # 16 inputs to 2 units with bias, 2 units to 1 logit with bias.
    assert plan.num_dense_parameters == 16 * 2 + 2 + 2 + 1


@needs_torchrec
def test_sharded_tables_go_to_the_workers_without_starting_them(tmp_path: Path) -> None:
    plan = plan_tables(config(tmp_path, backend="torchrec"), num_workers=2, cache_dir=tmp_path)

    assert {row["sharding"] for row in plan.tables} == {"table_wise"}
    assert sorted(rank for row in plan.tables for rank in row["ranks"]) == [0, 1]


def test_placement_of_no_table_is_an_error(tmp_path: Path) -> None:
    made = config(tmp_path, backend="auto", sharding={"usr": "table_wise"})

    with pytest.raises(ShardingError, match=r"tables\.sharding\.usr: there is no such table; there are: user, item"):
        plan_tables(made, num_workers=1, cache_dir=tmp_path)
