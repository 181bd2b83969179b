import pytest

from recmoe.embeddings.planned_shard import PlannedShard
from recmoe.planning.exchange import Exchange, exchange
from recmoe.planning.loads import ShardLoad
from recmoe.planning.topology import Efficiency, Topology


def travel(kind: str, *ranks: int, num_dense_parameters: int = 0, is_pooled: bool = True) -> Exchange:
    """Two nodes of two devices, 1 GB/s inside and 0.5 GB/s between; 1000 vectors of 4 floats."""
    topology = Topology(
        nodes=2,
        devices_per_node=2,
        memory_gb=1,
        intra_node_gb_per_s=1.0,
        inter_node_gb_per_s=0.5,
        efficiency=Efficiency(network=1.0),
    )
    loads = [
        ShardLoad(
            shard=PlannedShard("item", rank, 0, 0, 100, 4, kind),
            num_keys=1,
            state_width=1.0,
            num_ids=1000.0,
            num_distinct=50.0,
            num_vectors=1000.0,
            is_pooled=is_pooled,
        )
        for rank in ranks
    ]
    return exchange(loads, topology, num_dense_parameters=num_dense_parameters)


def test_whole_table_sends_half_of_its_vectors_to_the_other_node() -> None:
    found = travel("table_wise", 0)

    # 16,000 bytes forward and as many gradients back; half goes to the other node.
    assert found.vectors_s == pytest.approx(2 * 16_000 / 2 / 0.5e9)
    assert found.ids_s == pytest.approx((8_000 + 4_000) / 2 / 0.5e9)
    assert found.vector_bytes == pytest.approx(2 * 16_000 * 3 / 4)


def test_rows_over_all_workers_are_summed_by_a_ring() -> None:
    found = travel("row_wise", 0, 1, 2, 3)

    # Half is summed inside each node; the rest, half of it per device, half of that for the other node.
    assert found.vectors_s == pytest.approx(max(2 * 16_000 / 2 / 1e9, 2 * 16_000 / 2 / 2 / 0.5e9))


def test_rows_of_a_sequences_table_are_sent_by_those_who_hold_them() -> None:
    by_rows, whole = travel("row_wise", 0, is_pooled=False), travel("table_wise", 0)

    assert (by_rows.vectors_s, by_rows.vector_bytes) == (whole.vectors_s, whole.vector_bytes)


def test_rows_within_a_node_cost_less_between_nodes_than_rows_over_all() -> None:
    within, over = travel("table_row_wise", 0, 1), travel("row_wise", 0, 1, 2, 3)

    assert within.vectors_s == over.vectors_s
    assert within.ids_s == pytest.approx(over.ids_s)


def test_dense_gradients_are_summed_once_there_and_back() -> None:
    found = travel("table_wise", 0, num_dense_parameters=1000)

    # 4,000 bytes, twice; half inside the node, and of each device's half one half to the other node.
    assert found.gradients_s == pytest.approx(max(8_000 / 2 / 1e9, 8_000 / 2 / 2 / 0.5e9))


def test_replicated_table_sends_no_vectors() -> None:
    found = travel("data_parallel", 0, 1, 2, 3)

    assert (found.vectors_s, found.ids_s) == (0.0, 0.0)
    # 100 rows of 4 floats, twice.
    assert found.gradients_s == pytest.approx(2 * 1_600 / 2 / 2 / 0.5e9)
