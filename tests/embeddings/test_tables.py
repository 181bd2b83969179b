"""The config of tables and the plain back end."""

import dataclasses
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.nn.parameter import Parameter

from recmoe.config import all_problems, dump_config
from recmoe.embeddings.tables import PlainTables, TablesConfig, member_name
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout, TableSpec

AWKWARD = ["type", "keys", "items", "forward", "training", "shop.id", "a%b", "price#bucket", "%type", ""]


@pytest.fixture
def tables(layout: InputLayout) -> PlainTables:
    """Every weight is table + row: 10, 11 … in tag, 20 … in shop.id, 30 … in type."""
    tables = PlainTables(layout)
    for start, spec in zip((10.0, 20.0, 30.0), layout.tables, strict=True):
        rows = torch.arange(start, start + spec.num_rows)
        tables.weight(spec.name).data.copy_(rows[:, None].expand(-1, spec.width))
    return tables


def test_ids_are_looked_up_and_pooled(tables: PlainTables, batch: Batch) -> None:
    pooled_BP = tables(batch)

    assert pooled_BP[:, [0, 4, 8, 16]].tolist() == [[13, 0, 21, 32], [14, 15 + 19, 0, 30]]
    assert pooled_BP.shape == (2, 4 + 4 + 8 + 4)


def test_keys_of_one_side_are_looked_up_alone(tables: PlainTables, batch: Batch, layout: InputLayout) -> None:
    own = dataclasses.replace(batch, lengths_KB=batch.lengths_KB[1:], values=batch.values[2:])

    pooled_BP = tables(own, layout.select(("item",)).sparse)

    assert torch.equal(pooled_BP, tables(batch)[:, 4:])


def test_no_keys_give_no_columns(tables: PlainTables, batch: Batch) -> None:
    assert tables(batch, ()).shape == (2, 0)


def test_a_batch_without_ids_gives_zeros_and_a_gradient(tables: PlainTables, batch: Batch) -> None:
    empty = dataclasses.replace(batch, lengths_KB=torch.zeros_like(batch.lengths_KB), values=batch.values[:0])

    pooled_BP = tables(empty)
    pooled_BP.sum().backward()

    assert pooled_BP.abs().sum().item() == 0.0
    assert tables.weight("tag").grad is not None


def test_gradients_hold_the_touched_rows_alone(tables: PlainTables, batch: Batch) -> None:
    tables(batch).sum().backward()

    gradient = tables.weight("tag").grad
    assert gradient is not None
    assert gradient.is_sparse
    assert gradient.coalesce().indices()[0].tolist() == [3, 4, 5, 9]


def test_parameters_are_named_for_their_tables(layout: InputLayout) -> None:
    names = [name for name, _ in PlainTables(layout).named_parameters()]

    assert names == ["tables.tag", "tables.shop%2Eid", "tables.%type"]


def test_any_name_makes_a_table() -> None:
    specs = tuple(TableSpec(name, 2, 4, "sum", (name,)) for name in AWKWARD)

    tables = PlainTables(InputLayout(tables=specs, sparse=(), dense=()))

    assert list(tables.table_weights()) == AWKWARD
    assert len({member_name(name) for name in AWKWARD}) == len(AWKWARD)
    assert all(isinstance(tables.weight(name), Parameter) for name in AWKWARD)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sharding": {"tag": "column_wise"}}, "keeps one sum per row.*tables.optimizer.kind: adagrad"),
        ({"sharding": {"tag": "grid_shard"}}, "keeps one sum per row.*tables.optimizer.kind: adagrad"),
        ({"sharding": {"tag": "data_parallel"}, "optimizer": {"kind": "adam"}}, "adam cannot tell the touched ones"),
        ({"sharding": {"tag": "table_wise"}, "backend": "plain"}, "the plain back end keeps every table whole"),
    ],
)
def test_impossible_pairs_are_problems(values: dict[str, Any], message: str) -> None:
    problems = list(TablesConfig.model_validate(values).problems())

    assert [path for path, _ in problems] == ["sharding.tag"]
    assert re.search(message, problems[0][1])


@pytest.mark.parametrize(
    ("values", "world_size", "path", "message"),
    [
        ({"sharding": {"tags": "table_wise"}}, 1, "sharding.tags", "no such table; there are: tag, shop.id, type"),
        ({"sharding": {"tag": {"kernel": "fused_uvm"}}}, 2, "sharding.tag", "kernel fused_uvm keeps the table in the"),
        (
            {"dedup_ids": True, "sharding": {"tag": "row_wise"}},
            2,
            "dedup_ids",
            "cannot exchange the gradients of tables that are cut by rows then (tag); drop one of both",
        ),
        ({"optimizer": {"kind": "adam"}}, 1, "optimizer.kind", "no adam for tables on a CPU; use rowwise_adagrad"),
        ({"backend": "plain"}, 2, "backend", "plain tables train in one process, not in 2 workers"),
    ],
)
def test_what_a_cpu_cannot_do_is_told_before_launch(
    values: dict[str, Any], world_size: int, path: str, message: str, layout: InputLayout
) -> None:
    config = TablesConfig.model_validate({"backend": "torchrec", **values})

    problems = list(config.launch_problems(layout=layout, device_type="cpu", world_size=world_size))

    assert [found for found, _ in problems] == [path]
    assert message in problems[0][1]


@pytest.mark.parametrize(
    ("values", "path", "message"),
    [
        (
            {"sharding": {"tag": {"kernel": "fused", "cache_share": 0.5}}},
            "sharding.tag.cache_share",
            "kernel fused has no",
        ),
        (
            {"sharding": {"tag": {"kind": "data_parallel", "kernel": "fused_uvm"}}},
            "sharding.tag.kernel",
            "a data_parallel table is whole on every device and cannot be fused_uvm",
        ),
        (
            {
                "sharding": {"tag": "column_wise"},
                "optimizer": {"kind": "adagrad"},
                "communication": {"forward": "int8"},
            },
            "sharding.tag",
            "int8 needs the groups of a row together; use table_wise, or tables.communication.forward: fp16",
        ),
        ({"backend": "plain", "dedup_ids": True}, "dedup_ids", "the plain back end sends no ids"),
        (
            {"dedup_ids": True, "optimizer": {"kind": "adagrad"}},
            "dedup_ids",
            "torchrec's adagrad takes no ids that were made distinct; drop it, or use tables.optimizer.kind: rowwise",
        ),
        ({"backend": "plain", "communication": {"forward": "fp16"}}, "communication", "has no workers that talk"),
    ],
)
def test_what_does_not_fit_together_is_told_with_its_key(values: dict[str, Any], path: str, message: str) -> None:
    problems = all_problems(TablesConfig.model_validate(values))

    assert [found for found, _ in problems] == [path]
    assert message in problems[0][1]


def test_kind_alone_is_short_for_a_section() -> None:
    short = TablesConfig.model_validate({"sharding": {"tag": "row_wise"}})
    long = TablesConfig.model_validate({"sharding": {"tag": {"kind": "row_wise", "kernel": "fused"}}})

    assert short == long
    assert TablesConfig.model_validate(dump_config(short)) == short


def test_a_width_the_kernels_cannot_do_is_told_before_launch() -> None:
    config = TablesConfig(backend="torchrec")
    spec = TableSpec("tag", 10, 6, "sum", ("tag",))

    problems = list(
        config.launch_problems(layout=InputLayout(tables=(spec,), sparse=(), dense=()), device_type="cpu", world_size=1)
    )

    assert "table tag: width 6 is no multiple of 4, which torchrec's kernels need; use 8" in problems[0][1]


def test_a_gpu_does_what_a_cpu_cannot(layout: InputLayout) -> None:
    config = TablesConfig.model_validate(
        {"backend": "torchrec", "sharding": {"tag": {"kernel": "fused_uvm"}}, "optimizer": {"kind": "adam"}}
    )

    assert list(config.launch_problems(layout=layout, device_type="cuda", world_size=2)) == []


def test_plain_tables_and_checkpoints_do_without_torchrec() -> None:
    code = (
        "import sys; sys.modules['torchrec'] = None; sys.modules['fbgemm_gpu'] = None\n"
        "import recmoe.embeddings.placement, recmoe.embeddings.logical, recmoe.training.checkpoint"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
