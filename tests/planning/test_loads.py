from dataclasses import replace

import pytest

from recmoe.embeddings.planned_shard import PlannedShard
from recmoe.planning.loads import ShardLoad, shard_loads
from recmoe.planning.work import TableWork

WORK = TableWork(table="item", batch_size=10, num_ids=10.0, num_distinct=8.0, num_vectors=10, width=4, state_width=1.0)


def loads(
    *shards: PlannedShard, is_vocabulary: bool = False, zipf: float = 0.0, work: TableWork = WORK
) -> list[ShardLoad]:
    return shard_loads(
        shards,
        work={"item": work},
        num_rows={"item": 1000},
        world_size=2,
        frequent_first={"item"} if is_vocabulary else set(),
        zipf=zipf,
    )


def halves(kind: str) -> list[PlannedShard]:
    return [PlannedShard("item", rank, 500 * rank, 0, 500, 4, kind) for rank in (0, 1)]


def test_whole_table_gets_the_ids_of_all_workers() -> None:
    (load,) = loads(PlannedShard("item", 1, 0, 0, 1000, 4, "table_wise"))

    assert (load.num_ids, load.num_vectors) == (20, 20)
    assert load.weight_bytes == 1000 * 4 * 4
    assert load.state_bytes == 1000 * 4
    assert load.lookup_bytes == 16 * (20 + 20)
    assert load.vector_bytes == 16 * 20
    assert load.id_bytes == 8 * 20 + 4 * 20
    # 20 even draws of 1000 rows touch nearly 20 rows.
    assert load.update_bytes == pytest.approx(16 * 20 + 2 * 4 * (4 + 1) * 1000 * (1 - 0.999**20))


def test_half_of_the_rows_gets_half_of_even_ids_but_all_vectors() -> None:
    made = loads(*halves("row_wise"))

    assert [load.num_ids for load in made] == pytest.approx([10, 10], rel=0.1)
    assert [load.num_vectors for load in made] == [20, 20]


def test_half_of_the_rows_of_a_sequences_table_sends_the_vectors_of_its_own_ids() -> None:
    made = loads(*halves("row_wise"), work=replace(WORK, is_pooled=False))

    assert [load.num_vectors for load in made] == [load.num_ids for load in made]
    assert sum(load.num_vectors for load in made) == pytest.approx(20)


def test_first_half_of_a_vocabulary_gets_the_frequent_ids() -> None:
    first, second = loads(*halves("row_wise"), is_vocabulary=True, zipf=1.1)

    assert first.num_ids + second.num_ids == pytest.approx(20)
    assert first.num_ids > 0.9 * 20


def test_columns_get_all_ids_and_their_part_of_the_state() -> None:
    work = TableWork(
        table="item", batch_size=10, num_ids=10.0, num_distinct=8.0, num_vectors=10, width=4, state_width=4.0
    )
    shards = [PlannedShard("item", rank, 0, 2 * rank, 1000, 2, "column_wise") for rank in (0, 1)]

    made = loads(*shards, work=work)

    assert [load.num_ids for load in made] == [20, 20]
    assert [load.state_bytes for load in made] == [1000 * 2 * 4, 1000 * 2 * 4]


def test_replicated_table_gets_the_ids_of_its_own_worker_and_a_gradient_of_its_size() -> None:
    shards = [PlannedShard("item", rank, 0, 0, 1000, 4, "data_parallel", "dense") for rank in (0, 1)]

    made = loads(*shards)

    assert [load.num_ids for load in made] == [10, 10]
    assert made[0].state_bytes == 1000 * 4 + 1000 * 4 * 4
