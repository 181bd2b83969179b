import pytest

from recmoe.embeddings.planned_shard import PlannedShard
from recmoe.planning.balance import RankLoads
from recmoe.planning.costs import Costs
from recmoe.planning.counting import StepCounts
from recmoe.planning.estimate import StepEstimate, estimate
from recmoe.planning.loads import ShardLoad
from recmoe.planning.topology import Efficiency, Topology
from recmoe.planning.work import Work

COSTS = Costs(
    matrix_flops_per_s=6e6,
    activations_per_s=1e3,
    inputs_per_s=1e3,
    mixed_per_s=1e3,
    share_s=1e-3,
    product_s=0.25,
    row_bytes_per_s=1e3,
    id_s=0.0,
    table_s=0.0,
    optimizer_bytes_per_s=2800.0,
    step_s=0.5,
)
WORK = Work(
    batch_size=100,
    counts=StepCounts(
        # Two experts, forward and twice backward: 2 · 3 · 2 · 100 · 100 · 50.
        flops=6e6,
        num_products=2,
        num_activations=1000,
        num_inputs=1000,
        num_mixed=1000,
        num_shares=1000,
        num_parameters=100,
    ),
    tables=(),
)


def made(device: str, *, gb_per_s: float = 1.0) -> StepEstimate:
    load = ShardLoad(
        shard=PlannedShard("a", 0, 0, 0, 1000, 4, "table_wise"),
        num_keys=1,
        state_width=1.0,
        num_ids=100.0,
        num_distinct=50.0,
        num_vectors=100.0,
    )
    topology = Topology.model_validate(
        {
            "devices_per_node": 2,
            "device": device,
            "memory_gb": 1,
            "intra_node_gb_per_s": gb_per_s,
            "efficiency": Efficiency(network=1.0),
        }
    )
    return estimate(WORK, RankLoads([load], 2), topology=topology, costs=COSTS)


def test_parts_are_amounts_over_rates() -> None:
    found = made("cpu")

    assert found.parts["matrix products"] == pytest.approx(1.0)
    # Activations, inputs, mixed numbers and shares of gates, a second each.
    assert found.parts["activations"] == pytest.approx(4.0)
    assert found.parts["look-up"] == pytest.approx(16 * 200 / 1e3)
    assert found.parts["update"] == pytest.approx((16 * 100 + 2 * 20 * 50) / 1e3)
    # 7 numbers of 4 bytes per parameter.
    assert found.parts["dense optimizer"] == pytest.approx(1.0)
    assert found.parts["overhead"] == pytest.approx(0.5 + 2 * 0.25)
    assert found.step_s == pytest.approx(sum(found.parts.values()))
    assert found.samples_per_s == pytest.approx(200 / found.step_s)


def test_largest_part_bounds_the_step() -> None:
    found = made("cpu")

    assert [part for part, _ in found.bounds][:3] == ["activations", "update", "look-up"]
    assert found.bounds[0][1] == pytest.approx(4.0 / found.step_s)


def test_ids_and_dense_gradients_travel_beside_the_computation_on_a_gpu_alone() -> None:
    # Half of 1,200 bytes of ids, and of 800 bytes of gradients, over 100 bytes per second.
    cpu, gpu = made("cpu", gb_per_s=1e-7), made("cuda", gb_per_s=1e-7)

    assert cpu.parts["ids exchange"] == pytest.approx(6.0)
    assert cpu.parts["gradients exchange"] == pytest.approx(4.0)
    assert cpu.hidden == {}
    assert gpu.parts["ids exchange"] == 0.0
    assert gpu.hidden["ids exchange"] == pytest.approx(6.0)
    # Two thirds of products and activations are backward: 3.33 s of the 4 fit beside them.
    assert gpu.parts["gradients exchange"] == pytest.approx(4.0 - 10 / 3)
    assert gpu.parts["vectors exchange"] == cpu.parts["vectors exchange"] == pytest.approx(2 * 1600 / 2 / 100)
