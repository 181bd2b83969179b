import importlib.util
from collections.abc import Callable

import pytest

from recmoe.embeddings.planned_shard import PlannedShard
from recmoe.embeddings.tables import TablesConfig
from recmoe.errors import ShardingError
from recmoe.features.layout import InputLayout
from recmoe.planning.placement import place_tables
from recmoe.planning.topology import Topology

LayoutMaker = Callable[..., InputLayout]
needs_torchrec = pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="torchrec is not installed")

GPUS = Topology(
    nodes=16,
    devices_per_node=8,
    device="cuda",
    memory_gb=80,
    host_memory_gb=2000,
    intra_node_gb_per_s=450,
    inter_node_gb_per_s=50,
    rates="h100",
)


def place(layout: InputLayout, topology: Topology, **tables: object) -> list[PlannedShard]:
    return place_tables(
        layout, config=TablesConfig.model_validate(tables), topology=topology, batch_size=4096, ids_per_row={}
    )


@needs_torchrec
def test_ten_billion_rows_are_spread_over_128_gpus_that_nobody_has(layout_of: LayoutMaker) -> None:
    shards = place(layout_of(10_000_000_000, width=64), GPUS, backend="torchrec")

    assert {shard.sharding for shard in shards} == {"row_wise"}
    assert sorted(shard.rank for shard in shards) == list(range(128))
    assert sum(shard.num_rows for shard in shards) == 10_000_000_000
    assert max(shard.num_rows for shard in shards) * 64 * 4 < 80e9 * 0.8


@needs_torchrec
def test_named_sharding_is_kept(layout_of: LayoutMaker) -> None:
    layout = layout_of(1_000_000_000, width=64)

    shards = place(layout, GPUS, backend="torchrec", sharding={"table_0": "table_row_wise"})

    # The rows of one node's eight devices.
    assert len({shard.rank // 8 for shard in shards}) == 1
    assert len(shards) == 8


@needs_torchrec
def test_tables_that_do_not_fit_are_refused_with_the_number_that_would_do(layout_of: LayoutMaker) -> None:
    topology = GPUS.model_copy(update={"nodes": 2})

    # 10^10 rows of 64 floats and one of state: 2,600 GB; a device holds 64 GB, so 41 of them, in whole nodes 48.
    with pytest.raises(
        ShardingError,
        match=r"the tables need 2,600\.0 GB with optimizer state, and 16 devices of 80 GB hold 1,024\.0 GB beside the "
        r"reserve of 20%; the largest is table_0 with 10,000,000,000 rows of 64; 48 devices \(6 nodes of 8\) would do",
    ):
        place(layout_of(10_000_000_000, width=64), topology, backend="torchrec")


@needs_torchrec
def test_table_that_no_worker_can_hold_whole_is_refused_on_any_number_of_cpus(layout_of: LayoutMaker) -> None:
    topology = Topology(devices_per_node=2, memory_gb=1)

    with pytest.raises(ShardingError, match=r"and more devices do not help; split the largest table"):
        place(layout_of(100_000_000, width=16), topology, backend="torchrec")


def test_plain_tables_that_do_not_fit_are_refused(layout_of: LayoutMaker) -> None:
    with pytest.raises(
        ShardingError, match=r"the tables need 6\.8 GB .* and 1 device of 1 GB holds 0\.8 GB .*; install torchrec"
    ):
        place(layout_of(100_000_000, width=16), Topology(memory_gb=1), backend="plain")


def test_what_a_device_cannot_do_is_refused_as_in_training(layout_of: LayoutMaker) -> None:
    with pytest.raises(ShardingError, match=r"tables\.backend: plain tables train in one process, not in 2 workers"):
        place(layout_of(10), Topology(devices_per_node=2, memory_gb=1), backend="plain")
