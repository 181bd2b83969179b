"""Plans: what goes where, and what is refused before anything is launched."""

import re

import pytest
import torch
from torch import nn

from recmoe.embeddings import sharding
from recmoe.embeddings.fused import TorchrecTables
from recmoe.embeddings.hardware import Hardware
from recmoe.embeddings.placement import place
from recmoe.embeddings.sharding import describe_plan, make_plan, planned_shards
from recmoe.embeddings.tables import PlainTables, TablesConfig
from recmoe.errors import ShardingError
from recmoe.features.layout import InputLayout, TableSpec

CPU = torch.device("cpu")
HARDWARE = Hardware(
    device_bytes=10**10,
    host_bytes=10**10,
    memory_bytes_per_s=1e10,
    intra_node_bytes_per_s=1e9,
    inter_node_bytes_per_s=1e9,
    batch_size=64,
    ids_per_row={"history#item": 20.0},
)


def model_of(*specs: TableSpec) -> nn.Module:
    return nn.Sequential(TorchrecTables(InputLayout(tables=specs, sparse=(), dense=())))


def test_a_plan_needs_no_workers_and_shares_tables_out() -> None:
    model = model_of(*(TableSpec(f"t{i}", 1000, 16, "sum", (f"t{i}",)) for i in range(4)))

    plan = make_plan(model, config=TablesConfig(backend="torchrec"), device=CPU, world_size=2, local_world_size=2)

    rows = describe_plan(plan, model)
    assert rows[0].keys() == {"table", "rows", "width", "sharding", "ranks", "bytes"}
    assert {row["sharding"] for row in rows} == {"table_wise"}
    assert sorted(row["ranks"][0] for row in rows) == [0, 0, 1, 1]
    assert rows[0]["bytes"] == 1000 * 16 * 4


def test_a_named_table_is_split_as_told() -> None:
    model = model_of(TableSpec("shop.id", 1000, 16, "sum", ("shop",)), TableSpec("tag", 10, 4, "sum", ("tag",)))
    config = TablesConfig.model_validate(
        {
            "backend": "torchrec",
            "sharding": {"shop.id": "column_wise", "tag": "data_parallel"},
            "optimizer": {"kind": "adagrad"},
        }
    )

    plan = make_plan(model, config=config, device=CPU, world_size=2, local_world_size=2)

    rows = describe_plan(plan, model)
    assert [row["sharding"] for row in rows] == ["column_wise", "data_parallel"]
    assert rows[0]["ranks"] == [0, 1]


@pytest.mark.parametrize("kind", ["row_wise", "table_row_wise", "grid_shard"])
def test_rows_are_shared_out_on_a_cpu_too(kind: str) -> None:
    model = model_of(TableSpec("user", 1000, 16, "mean", ("user",)))
    config = TablesConfig.model_validate(
        {"backend": "torchrec", "sharding": {"user": kind}, "optimizer": {"kind": "adagrad"}}
    )

    plan = make_plan(model, config=config, device=CPU, world_size=2, local_world_size=2)

    (row,) = describe_plan(plan, model)
    assert (row["sharding"], row["ranks"]) == (kind, [0, 1])


@pytest.mark.parametrize(("device", "hardware"), [("cpu", None), ("cpu", HARDWARE), ("cuda", HARDWARE)])
def test_tables_of_sequences_are_planned_beside_the_others(
    device: str, hardware: Hardware | None, history_layout: InputLayout
) -> None:
    model = nn.Sequential(TorchrecTables(history_layout))
    config = TablesConfig.model_validate({"backend": "torchrec", "sharding": {"item": "row_wise"}})

    plan = make_plan(
        model,
        config=config,
        device=torch.device(device),
        world_size=2,
        local_world_size=2,
        hardware=hardware,
    )

    assert sorted(plan.plan) == ["0.collections.bags", "0.collections.rows_4", "0.collections.rows_8"]
    rows = {row["table"]: row for row in describe_plan(plan, model)}
    assert list(rows) == ["user", "item", "act.ion", "type"]
    assert (rows["item"]["sharding"], rows["item"]["ranks"], rows["item"]["bytes"]) == ("row_wise", [0, 1], 10 * 8 * 4)
    shards = planned_shards(plan, model)
    assert sum(shard.num_rows * shard.width for shard in shards) == 5 * 8 + 10 * 8 + 3 * 4 + 3 * 8


def test_kernel_and_cache_of_a_table_are_in_the_plan_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(*(TableSpec(name, 1000, 16, "sum", (name,)) for name in ("user", "item")))
    told = {"kind": "row_wise", "kernel": "fused_uvm_caching", "cache_share": 0.1}
    config = TablesConfig.model_validate({"backend": "torchrec", "sharding": {"user": told}})
    monkeypatch.setattr(sharding, "_memory_bytes", lambda *_: 10**9)

    plan = make_plan(model, config=config, device=torch.device("cuda"), world_size=2, local_world_size=2)

    (placed,) = plan.plan.values()
    assert (placed["user"].sharding_type, placed["user"].compute_kernel) == ("row_wise", "fused_uvm_caching")
    assert placed["user"].cache_params.load_factor == 0.1
    assert placed["item"].compute_kernel == "fused"


def test_tables_that_do_not_fit_are_refused() -> None:
    model = model_of(TableSpec("user", 10**12, 16, "sum", ("user",)))

    with pytest.raises(
        ShardingError, match=r"largest is user with 1,000,000,000,000 rows of 16\) do not fit 2 workers"
    ):
        make_plan(model, config=TablesConfig(backend="torchrec"), device=CPU, world_size=2, local_world_size=2)


def test_everything_that_a_cpu_cannot_do_is_told_at_once() -> None:
    model = model_of(TableSpec("user", 10, 6, "sum", ("user",)))
    config = TablesConfig.model_validate(
        {"backend": "torchrec", "sharding": {"user": {"kernel": "fused_uvm"}}, "optimizer": {"kind": "adam"}}
    )

    with pytest.raises(ShardingError) as error:
        make_plan(model, config=config, device=CPU, world_size=2, local_world_size=2)

    assert re.findall(r"tables\.[\w.]+(?=: (?:kernel|torchrec|table))", str(error.value)) == [
        "tables.sharding.user",
        "tables.optimizer.kind",
        "tables.backend",
    ]


@pytest.mark.usefixtures("one_process")
def test_placing_raises_what_planning_raises() -> None:
    config = TablesConfig.model_validate({"backend": "torchrec", "sharding": {"user": {"kernel": "fused_uvm"}}})

    with pytest.raises(ShardingError, match=r"tables\.sharding\.user: kernel fused_uvm keeps the table in the host's"):
        place(model_of(TableSpec("user", 10, 8, "sum", ("user",))), config=config, device=CPU)


def test_plain_tables_are_placed_whole(layout: InputLayout) -> None:
    config = TablesConfig(backend="plain")

    placed = place(nn.Sequential(PlainTables(layout)), config=config, device=CPU)

    assert placed.plan[1] == {
        "table": "shop.id",
        "rows": 7,
        "width": 8,
        "sharding": "whole",
        "ranks": [0],
        "bytes": 224,
    }


def test_plain_tables_refuse_what_they_do_not_have(layout: InputLayout) -> None:
    config = TablesConfig.model_validate({"backend": "plain", "sharding": {"shop": "table_wise"}})

    with pytest.raises(ShardingError, match=r"tables\.sharding\.shop: there is no such table; there are: tag"):
        place(nn.Sequential(PlainTables(layout)), config=config, device=CPU)
