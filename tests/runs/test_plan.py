import importlib.util
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.config import config_from_dict
from recmoe.errors import ConfigError, DataError, ShardingError
from recmoe.experiment import ExperimentConfig
from recmoe.planning.costs import Costs, MachineCosts
from recmoe.planning.job import JobPlan
from recmoe.planning.topology import PRESETS, Topology
from recmoe.runs.plan import plan_run, this_machine
from recmoe.runs.train import RunResult

needs_torchrec = pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="torchrec is not installed")

COSTS = Costs(
    source="measured here",
    matrix_flops_per_s=1e9,
    activations_per_s=1e9,
    inputs_per_s=1e9,
    mixed_per_s=1e9,
    share_s=0.0,
    product_s=0.0,
    row_bytes_per_s=1e9,
    id_s=0.0,
    table_s=0.0,
    optimizer_bytes_per_s=1e9,
    step_s=1e-3,
)


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
            "training": {"device": "cpu", "precision": "fp32"},
        },
    )


def plan(config: ExperimentConfig, folder: Path, *, num_workers: int = 1, **arguments: Any) -> JobPlan:
    topology = arguments.pop("topology", Topology(devices_per_node=num_workers, memory_gb=8))
    return plan_run(config, topology=topology, cache_dir=folder, **arguments)


def test_plain_tables_stay_whole(tmp_path: Path) -> None:
    found = plan(config(tmp_path, backend="plain"), tmp_path)

    assert [(row["table"], row["rows"], row["sharding"]) for row in found.tables] == [
        ("user", 4, "whole"),
        ("item", 3, "whole"),
    ]
    # Rows of 12 floats: 8 of a vector, and the tower's weight of the linear part, padded to 4.
    assert found.num_bytes == (4 + 3) * 12 * 4
    # 16 inputs to 2 units with bias, 2 units to 1 logit with bias; weight, gradient and two moments of each.
    assert found.work.num_dense_parameters == 16 * 2 + 2 + 2 + 1
    assert found.dense_bytes_R.tolist() == [16 * (16 * 2 + 2 + 2 + 1)]


@needs_torchrec
@pytest.mark.parametrize(
    ("gate", "num_sent"),
    [
        # 10 rows of 16 numbers to both workers, outputs of 6 numbers from 4 experts; half of it stays.
        ({"kind": "softmax"}, (10 * 16 * 2 + 10 * 6 * 4) / 2),
        # Each row to one expert.
        ({"kind": "top_k", "k": 1}, (10 * 16 + 10 * 6) / 2),
    ],
)
def test_divided_experts_are_held_and_sent_as_counted_by_hand(
    tmp_path: Path, gate: dict[str, object], num_sent: float
) -> None:
    changes = {
        "model": {"architecture": {"kind": "mmoe", "num_experts": 4, "expert_hidden": [6], "gate": gate}},
        "training": {"device": "cpu", "precision": "fp32", "batch_size": 10, "experts": "over_workers"},
    }
    divided = config(tmp_path, backend="torchrec").model_dump(mode="json") | changes
    costs = MachineCosts(rates=PRESETS["a100"], fp32=COSTS)

    found = plan(config_from_dict(ExperimentConfig, divided), tmp_path, num_workers=2, measured=costs)

    # Two experts of one layer each, with biases; forward and gradients, of 4 bytes.
    made = found.to_json()
    assert made["num_expert_parameters"] == [2 * (16 * 6 + 6)] * 2
    assert made["sent_bytes"] == pytest.approx(2 * 4 * num_sent)
    counts = found.work.counts
    assert found.work.num_dense_parameters == counts.num_parameters - 2 * (16 * 6 + 6)
    assert found.dense_bytes_R.tolist() == [16 * found.work.num_dense_parameters] * 2
    topology = found.topology
    assert made["step"]["parts"]["rows exchange"] == pytest.approx(
        2 * 4 * num_sent / (topology.intra_node_gb_per_s * 1e9 * topology.efficiency.network)
    )


@needs_torchrec
def test_fewer_experts_than_workers_cannot_be_planned(tmp_path: Path) -> None:
    divided = config(tmp_path, backend="torchrec").model_dump(mode="json")
    divided["model"] = {"architecture": {"kind": "mmoe", "num_experts": 2}}
    divided["training"] = {"device": "cpu", "experts": "over_workers"}

    with pytest.raises(ConfigError, match="level 0 has 2 with weights for 3 workers"):
        plan(config_from_dict(ExperimentConfig, divided), tmp_path, num_workers=3)


@needs_torchrec
def test_sharded_tables_go_to_the_workers_without_starting_them(tmp_path: Path) -> None:
    found = plan(config(tmp_path, backend="torchrec"), tmp_path, num_workers=2)

    assert {row["sharding"] for row in found.tables} == {"table_wise"}
    assert sorted(rank for row in found.tables for rank in row["ranks"]) == [0, 1]
    # One float of state per row.
    assert sorted((found.ranks.weight_bytes_R + found.ranks.state_bytes_R).tolist()) == [3 * 52, 4 * 52]


def test_placement_of_no_table_is_an_error(tmp_path: Path) -> None:
    made = config(tmp_path, backend="auto", sharding={"usr": "table_wise"})

    with pytest.raises(ShardingError, match=r"tables\.sharding\.usr: there is no such table; there are: user, item"):
        plan(made, tmp_path)


@needs_torchrec
def test_ten_billion_rows_on_128_gpus_need_neither_log_nor_gpus(tmp_path: Path) -> None:
    made = config(tmp_path)
    (tmp_path / "train.parquet").unlink()
    topology = Topology(
        nodes=16, devices_per_node=8, device="cuda", memory_gb=80, host_memory_gb=2000, rates="h100",
        intra_node_gb_per_s=450, inter_node_gb_per_s=50,
    )  # fmt: skip

    found = plan(made, tmp_path, topology=topology, rows={"user": 2_000_000_000, "item": 10_000_000_000})

    assert found.tables[1]["ranks"] == list(range(128))
    assert float(found.bytes_R.max()) < 80e9
    assert found.estimate is not None
    assert found.estimate.costs.matrix_flops_per_s < PRESETS["h100"].bf16_flops_per_s
    assert found.estimate.samples == 128 * made.training.batch_size
    assert found.warnings[-1].startswith("vocabulary: 10,000,000,001 ids of item take about 1,920 GB of a node's 2,000")
    assert found.to_json()["step"]["parts"]["vectors exchange"] > 0


def test_log_that_is_missing_is_no_obstacle_when_rows_are_said(tmp_path: Path) -> None:
    made = config(tmp_path, backend="plain")
    (tmp_path / "train.parquet").unlink()

    with pytest.raises(
        DataError, match=r"without a log, say how many different ids there are, such as --rows user=1e6"
    ):
        plan(made, tmp_path, rows={"item": 5})

    assert [row["rows"] for row in plan(made, tmp_path, rows={"item": 5, "user": 7}).tables] == [8, 6]


def test_vocabularies_may_come_from_a_run(finished: tuple[ExperimentConfig, RunResult], tmp_path: Path) -> None:
    made, run = finished

    found = plan(made, tmp_path, run_dir=run.folder.root, rows={"user_id": 1_000})

    rows = {row["table"]: row["rows"] for row in found.tables}
    # 29 of the items in the log, five words, and the row of the unknown.
    assert (rows["user_id"], rows["item_id"], rows["tags"]) == (1_001, 30, 6)


def test_step_takes_what_was_measured_and_half_the_machine_is_half_as_fast(tmp_path: Path) -> None:
    made = config(tmp_path, backend="auto")
    measured = MachineCosts(rates=PRESETS["h100"], fp32=COSTS)

    one = plan(made, tmp_path, measured=measured)

    assert one.estimate is not None
    assert one.estimate.parts["matrix products"] == pytest.approx(one.work.flops / 1e9)
    assert one.estimate.parts["overhead"] == 1e-3
    assert plan(made, tmp_path).estimate is None


@needs_torchrec
def test_workers_of_one_machine_share_it(tmp_path: Path) -> None:
    measured = MachineCosts(rates=PRESETS["h100"], fp32=COSTS)

    found = plan(config(tmp_path), tmp_path, num_workers=2, measured=measured)

    assert found.estimate is not None
    assert found.estimate.parts["matrix products"] == pytest.approx(2 * found.work.flops / 1e9)


def test_this_machine_is_shared_by_its_workers() -> None:
    one, two = this_machine("cpu", num_workers=1), this_machine("cpu", num_workers=2)

    assert (two.world_size, two.device) == (2, "cpu")
    assert two.memory_gb == pytest.approx(one.memory_gb / 2)
