from typing import Any

import pytest

from recmoe.embeddings.planned_shard import PlannedShard
from recmoe.planning.balance import RankLoads, balance_warnings, max_over_mean
from recmoe.planning.costs import Costs
from recmoe.planning.loads import ShardLoad

COSTS = Costs(
    matrix_flops_per_s=1.0,
    activations_per_s=1.0,
    inputs_per_s=1.0,
    mixed_per_s=1.0,
    share_s=0.0,
    product_s=0.0,
    row_bytes_per_s=1e6,
    id_s=0.0,
    table_s=0.0,
    optimizer_bytes_per_s=1.0,
    step_s=0.0,
)


def load(
    table: str, rank: int, *, num_rows: int = 1000, num_ids: float = 10.0, sharding: str = "table_wise"
) -> ShardLoad:
    return ShardLoad(
        shard=PlannedShard(table, rank, 0, 0, num_rows, 4, sharding),
        num_keys=1,
        state_width=1.0,
        num_ids=num_ids,
        num_distinct=num_ids,
        num_vectors=num_ids,
    )


def warnings(*loads: ShardLoad, **arguments: Any) -> list[str]:
    defaults: dict[str, Any] = {"memory_bytes": 1e6, "costs": COSTS, "step_s": 1e-3}
    return balance_warnings(RankLoads(loads, 2), **{**defaults, **arguments})


def test_bytes_of_a_worker_are_those_of_its_pieces() -> None:
    ranks = RankLoads([load("a", 0), load("b", 0), load("c", 1)], 2)

    assert ranks.weight_bytes_R.tolist() == [2 * 16_000, 16_000]
    assert ranks.state_bytes_R.tolist() == [2 * 4_000, 4_000]
    assert max_over_mean(ranks.weight_bytes_R) == pytest.approx(4 / 3)


def test_even_workers_are_not_worth_a_word() -> None:
    assert warnings(load("a", 0), load("b", 1)) == []


def test_worker_that_holds_too_much_is_named_with_its_table() -> None:
    found = warnings(load("a", 0, num_rows=9000), load("b", 0), load("c", 1))

    # 200,000 of 220,000 bytes.
    assert found[0].startswith("memory: worker 0 holds 1.8 times the mean, most of it of a; split that table")


def test_worker_that_looks_up_too_much_is_named_with_its_table() -> None:
    found = warnings(load("a", 0, num_ids=90.0), load("b", 1))

    assert len(found) == 1
    assert found[0].startswith(
        "look-ups: worker 0 needs 1.8 times the mean time, most of it for a, of whose ids it gets"
    )
    assert found[0].endswith("split that table (tables.sharding.a), or give it a narrower width")


def test_rows_that_keep_frequent_ids_together_are_to_be_hashed() -> None:
    pieces = [load("a", rank, num_ids=ids, sharding="row_wise") for rank, ids in ((0, 93.0), (1, 7.0))]

    found = warnings(*pieces)

    assert "of whose ids it gets 93%; a vocabulary keeps frequent ids together: hash them" in found[0]


def test_imbalance_that_costs_nothing_is_not_worth_a_word() -> None:
    assert warnings(load("a", 0, num_ids=90.0), load("b", 1), step_s=10.0) == []
    assert warnings(load("a", 0, num_ids=90.0), load("b", 1), costs=None, step_s=None) == []
    assert warnings(load("a", 0, num_rows=9000), load("b", 1), memory_bytes=1e9) == []
