from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from recmoe.embeddings.sparse_optimizer import AdagradConfig, RowwiseAdagradConfig, SGDConfig
from recmoe.embeddings.tables import PlainTables
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout
from recmoe.model import ModelConfig, build_model
from recmoe.planning.work import Work, step_work
from recmoe.tasks.funnel import TaskSet

LayoutMaker = Callable[..., InputLayout]

CRITEO_LIKE = [10 + 40_000 * i for i in range(26)]
TRUNKS = ("rank_mixer", "attention_heads")


def work(layout: InputLayout, tasks: TaskSet, batch_size: int, **model: object) -> Work:
    return step_work(
        layout,
        tasks=tasks,
        model=ModelConfig.model_validate(model),
        optimizer=RowwiseAdagradConfig(),
        batch_size=batch_size,
    )


def test_shared_bottom_is_counted_as_by_hand(layout_of: LayoutMaker, two_tasks: TaskSet) -> None:
    # Two ids of width 4 and one number: 9 inputs.
    made = work(
        layout_of(5, 7, num_numbers=1),
        two_tasks,
        10,
        architecture={"kind": "shared_bottom", "hidden": [3]},
        towers={"hidden": [2]},
    )

    # Forward, gradient of the weight and of the input: 3 passes, 2 operations, 10 rows.
    experts, towers = 60 * 9 * 3, 60 * 2 * (3 * 2 + 2 * 1)
    # The number's weight of each tower; nothing learns before it, so there are 2 passes.
    wide = 40 * 1 * 2
    assert (made.flops, made.mixing_flops) == (experts + towers + wide, 0)
    # What the expert, both layers of two towers and the linear part read and hand on.
    assert made.counts.num_inputs == 10 * (9 + 2 * (3 + 2) + 1)
    assert made.counts.num_activations == 10 * (3 + 2 * (2 + 1) + 2)
    assert made.counts.num_products == 1 + 2 * 2 + 1
    assert made.num_dense_parameters == (9 * 3 + 3) + 2 * ((3 * 2 + 2) + (2 + 1)) + 2
    assert made.optimizer_bytes == 7 * 4 * made.num_dense_parameters


def test_mmoe_and_ple_of_the_benchmark_need_what_was_counted(layout_of: LayoutMaker, two_tasks: TaskSet) -> None:
    layout = layout_of(*CRITEO_LIKE, width=16, num_numbers=13)

    mmoe = work(layout, two_tasks, 4096, architecture={"kind": "mmoe"})
    ple = work(layout, two_tasks, 4096, architecture={"kind": "ple"})

    # 429 inputs, 8 experts [256, 128], two gates of 8, two towers [64].
    products = 8 * (429 * 256 + 256 * 128) + 2 * 429 * 8 + 2 * (128 * 64 + 64)
    linear_part = 4 * 4096 * 13 * 2
    assert mmoe.flops - mmoe.mixing_flops == 6 * 4096 * products + linear_part
    assert mmoe.flops == pytest.approx(28.6e9, rel=0.005)
    assert ple.flops == pytest.approx(31.3e9, rel=0.005)


@pytest.mark.parametrize("kind", ["single_task", "shared_bottom", "omoe", "mmoe", "cgc", "ple", *TRUNKS])
def test_count_equals_what_torch_counts_in_a_real_step(layout_of: LayoutMaker, two_tasks: TaskSet, kind: str) -> None:
    layout = layout_of(5, 7, num_numbers=2)
    section = "trunk" if kind in TRUNKS else "architecture"
    config = ModelConfig.model_validate({section: {"kind": kind}, "towers": {"hidden": [8]}})
    model = build_model(layout=layout, tasks=two_tasks, config=config, tables=PlainTables)
    batch = Batch(
        dense_BF=torch.randn(6, 2),
        lengths_KB=torch.ones(2, 6, dtype=torch.int32),
        values=torch.arange(12) % 5,
        labels_BL=torch.zeros(6, 2),
    )

    with FlopCounterMode(display=False) as counter:
        model(batch).logits_BZ.sum().backward()

    made = work(layout, two_tasks, 6, **config.model_dump())
    # Mixing is no matrix product in the form for a CPU.
    assert counter.get_total_flops() == made.flops - made.mixing_flops


def test_neurons_that_a_row_retrieves_are_counted(layout_of: LayoutMaker, two_tasks: TaskSet) -> None:
    def made(**sizes: int) -> Work:
        expert = {"kind": "peer", "num_neurons": 64, "num_heads": 2, "query": 8, **sizes}
        architecture = {"kind": "omoe", "num_experts": 1, "expert_hidden": [6], "expert": expert}
        return work(layout_of(5, 7), two_tasks, 10, architecture=architecture, towers={"hidden": []})

    few, more = made(k=2), made(k=5)

    # Of each of three neurons more a head: a product with 8 inputs, and 6 outputs that its activation multiplies.
    assert more.counts.flops - few.counts.flops == 6 * 10 * 2 * 3 * 8
    assert more.counts.num_mixed - few.counts.num_mixed == 10 * 2 * 3 * 6
    assert more.counts.num_shares - few.counts.num_shares == 10 * 2 * 3
    assert more.mixing_flops - few.mixing_flops == 6 * 10 * 2 * 3 * 6


def test_heads_that_a_token_did_not_choose_cost_nothing(layout_of: LayoutMaker, two_tasks: TaskSet) -> None:
    def made(num_used: int) -> Work:
        trunk = {"kind": "attention_heads", "tokens": 3, "width": 6, "head_width": 4, "num_blocks": 2}
        return work(layout_of(5, 7, 9), two_tasks, 1000, trunk={**trunk, "num_heads": 8, "num_used": num_used})

    few, all_heads = made(2), made(8)

    # A query, its products with three keys, the sum of three values, and the output; of 512 rows, in proportion.
    of_a_head = 6 * 4 + 3 * 4 + 3 * 4 + 4 * 6
    difference = (all_heads.flops - all_heads.mixing_flops) - (few.flops - few.mixing_flops)
    assert difference == 6 * 1000 * 3 * 2 * (8 - 2) * of_a_head
    assert all_heads.counts.num_mixed - few.counts.num_mixed == 1000 * 3 * 2 * (8 - 2) * 6
    assert few.num_dense_parameters == all_heads.num_dense_parameters


def test_gates_on_one_input_are_one_product(layout_of: LayoutMaker, two_tasks: TaskSet) -> None:
    architecture = {"kind": "mmoe", "num_experts": 4, "expert_hidden": [3]}

    made = work(layout_of(5), two_tasks, 8, architecture=architecture, towers={"hidden": []})

    # Four experts, the gates of both tasks in one go, two towers; each gate weights 4 experts of width 3.
    assert made.counts.num_products == 4 + 1 + 2
    assert (made.counts.num_shares, made.counts.num_mixed) == (8 * 2 * 4, 8 * 2 * 4 * 3)


def test_sparse_gate_computes_the_experts_that_some_gate_chose(layout_of: LayoutMaker, two_tasks: TaskSet) -> None:
    def made(gate: object) -> Work:
        architecture = {"kind": "mmoe", "num_experts": 4, "expert_hidden": [300], "gate": gate}
        return work(layout_of(5, width=64), two_tasks, 2048, architecture=architecture, towers={"hidden": []})

    dense, sparse = made({"kind": "softmax"}), made({"kind": "top_k", "k": 2})

    # Each of two gates leaves out half of the experts: a quarter is left out by both.
    assert sparse.flops - sparse.mixing_flops == pytest.approx(0.75 * (dense.flops - dense.mixing_flops), rel=0.05)
    # Two of four experts are mixed.
    assert sparse.mixing_flops == dense.mixing_flops / 2
    assert sparse.num_dense_parameters == dense.num_dense_parameters


def test_products_of_the_gradients_that_a_rule_reads_are_counted(layout_of: LayoutMaker, two_tasks: TaskSet) -> None:
    architecture = {"kind": "shared_bottom", "hidden": [3]}

    plain = work(layout_of(5), two_tasks, 1024, architecture=architecture)
    balanced = work(layout_of(5), two_tasks, 1024, architecture=architecture, balancing={"kind": "upgrad"})

    # Each of two gradients of 1024 rows of 3 numbers, with each.
    assert balanced.flops - plain.flops == pytest.approx(2 * 2 * 2 * 1024 * 3)


def test_bytes_of_a_table_follow_ids_rows_and_state(layout_of: LayoutMaker, two_tasks: TaskSet) -> None:
    def table(optimizer: RowwiseAdagradConfig | AdagradConfig | SGDConfig, ids_per_row: float = 1.0) -> Work:
        return step_work(
            layout_of(1000),
            tasks=two_tasks,
            model=ModelConfig.model_validate({"architecture": {"kind": "shared_bottom", "hidden": [2]}}),
            optimizer=optimizer,
            batch_size=10,
            ids_per_row={"key_0": ids_per_row},
        )

    one, many = table(RowwiseAdagradConfig()).tables[0], table(RowwiseAdagradConfig(), 20.0).tables[0]

    assert (one.num_ids, many.num_ids, one.num_vectors, many.num_vectors) == (10, 200, 10, 10)
    assert one.num_distinct < 10 < many.num_distinct < 200
    # 8 floats per row, 4 of a vector and 4 for two towers' weights: read for every id, written for every vector.
    assert (one.lookup_bytes, many.lookup_bytes) == (32 * (10 + 10), 32 * (200 + 10))
    assert one.update_bytes == pytest.approx(32 * 10 + 2 * (32 + 4) * one.num_distinct)
    assert (one.id_bytes, many.id_bytes, one.pooled_bytes) == (8 * 10 + 4 * 10, 8 * 200 + 4 * 10, 32 * 10)
    assert [table(rule).tables[0].state_width for rule in (RowwiseAdagradConfig(), AdagradConfig(), SGDConfig())] == [
        1,
        8,
        0,
    ]


def test_without_a_linear_part_rows_are_vectors_alone(layout_of: LayoutMaker, two_tasks: TaskSet) -> None:
    made = work(layout_of(5, num_numbers=1), two_tasks, 10, wide={"kind": "none"})

    with_one = work(layout_of(5, num_numbers=1), two_tasks, 10)
    assert (made.tables[0].width, with_one.tables[0].width) == (4, 8)
    # A number's weight for each of two towers, forward and for the weight's gradient.
    assert with_one.flops - made.flops == 40 * 1 * 2


def test_counting_leaves_the_random_numbers_alone(layout_of: LayoutMaker, two_tasks: TaskSet) -> None:
    before = torch.random.get_rng_state()

    work(layout_of(5), two_tasks, 8, architecture={"kind": "mmoe"})

    assert torch.equal(torch.random.get_rng_state(), before)
