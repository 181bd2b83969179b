"""STEM: the paper's mixture row by row, gradients that stay with their task, and vectors of every task in one row."""

from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from recmoe.architectures.cgc import SHARED
from recmoe.architectures.seam import copy_group
from recmoe.architectures.stem import STEM
from recmoe.embeddings.tables import PlainTables
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES
from recmoe.features.schema import FeatureSchema
from recmoe.model import ModelConfig, MultiTaskRanker, build_model
from recmoe.moe.gates import TopKGateConfig
from recmoe.moe.mixture import MixtureConfig
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet

LOG = pa.table(
    {
        "user": [f"u{row % 3}" for row in range(8)],
        "item": [f"i{row % 5}" for row in range(8)],
        "price": [float(row) for row in range(8)],
    }
)
SCHEMA = FeatureSchema.model_validate(
    {
        "width": 2,
        "features": {
            "user": {"kind": "id", "side": "user"},
            "item": {"kind": "id"},
            "price": {"kind": "numeric"},
        },
    }
)
TASKS = TaskSet({"click": BinaryTaskConfig(label="click"), "buy": BinaryTaskConfig(label="buy")})


def network_of(**mixture: Any) -> STEM:
    torch.manual_seed(0)
    return STEM(
        in_features=3,
        num_task_experts={"click": 1, "buy": 2},
        num_shared_experts=1,
        make_layer=MixtureConfig(expert_hidden=(5, 4), **mixture).layer,
    )


def ranker_of() -> tuple[FeatureEncoder, MultiTaskRanker]:
    encoder = FeatureEncoder.fit(SCHEMA, [LOG], ())
    config = ModelConfig.model_validate({"architecture": {"kind": "stem", "expert_hidden": [4]}})
    torch.manual_seed(0)
    ranker = build_model(
        layout=encoder.layout,
        tasks=TASKS,
        config=config,
        tables=lambda layout: PlainTables(layout, seed=3, init_std=1.0),
    )
    return encoder, ranker


def test_mixtures_equal_the_equation_row_by_row() -> None:
    network = network_of().double().requires_grad_(False)
    copies = {owner: torch.randn(4, 3, dtype=torch.float64) for owner in ("click", "buy", SHARED)}
    owners = ["click", "buy", "buy", SHARED]

    h, _ = network(torch.empty(4, 0), {copy_group(owner): e_BD for owner, e_BD in copies.items()})

    def expert(index: int, x_D: Tensor) -> Tensor:
        experts = network.layer.experts
        for weight_EOD, bias_EO in zip(experts.weights_EOD, experts.biases_EO, strict=True):
            x_D = torch.relu(weight_EOD[index] @ x_D + bias_EO[index])
        return x_D

    for row in range(4):
        outputs = [expert(index, copies[owner][row]) for index, owner in enumerate(owners)]
        for task, name in enumerate(("click", "buy")):
            p_E = torch.softmax(network.layer.gates[task].weight_VD @ copies[name][row], dim=0)
            torch.testing.assert_close(h[task][row], sum(p * y for p, y in zip(p_E, outputs, strict=True)))


def test_sparse_gates_have_the_outputs_and_gradients_of_all_experts_with_zeros_between_them() -> None:
    network = network_of(gate=TopKGateConfig(k=2)).double()
    copies = {copy_group(owner): torch.randn(20, 3, dtype=torch.float64) for owner in ("click", "buy", SHARED)}

    sparse = network(torch.empty(20, 0), copies)[0]
    for gate in network.layer.gates:
        gate.is_sparse = False
    dense = network(torch.empty(20, 0), copies)[0]

    torch.testing.assert_close(sparse, dense)
    weights = list(network.parameters())
    for sparse_BH, dense_BH in zip(sparse, dense, strict=True):
        found, expected = (
            torch.autograd.grad(h.square().sum(), weights, retain_graph=True, materialize_grads=True)
            for h in (sparse_BH, dense_BH)
        )
        torch.testing.assert_close(found, expected)


def test_no_gradient_goes_from_a_task_to_the_experts_and_vectors_of_another() -> None:
    network = network_of()
    copies = {owner: torch.randn(20, 3, requires_grad=True) for owner in ("click", "buy", SHARED)}

    network(torch.empty(20, 0), {copy_group(owner): e_BD for owner, e_BD in copies.items()})[0][0].sum().backward()

    gradient_EOD = network.layer.experts.weights_EOD[0].grad
    assert [bool(gradient.any()) for gradient in gradient_EOD] == [True, False, False, True]
    assert {owner: e_BD.grad is not None and bool(e_BD.grad.any()) for owner, e_BD in copies.items()} == {
        "click": True,
        "buy": False,
        SHARED: True,
    }


def test_row_of_a_table_holds_the_vectors_of_all_owners() -> None:
    encoder, ranker = ranker_of()
    tables = ranker.input_layer.tables
    assert isinstance(tables, PlainTables)

    groups = ranker.input_layer(encoder.encode(LOG, with_labels=False)).inputs.groups

    assert ranker.input_layer.layout.copies == (SHARED, "click", "buy")
    for place, owner in enumerate((SHARED, "click", "buy")):
        own = slice(2 * place, 2 * place + 2)
        x_BD = groups[copy_group(owner)]
        # The user's vector, the item's, and the price.
        assert isinstance(x_BD, Tensor)
        assert x_BD.shape == (8, 5)
        assert torch.equal(x_BD[0, :2], tables.weight("user")[1, own])
        assert torch.equal(x_BD[0, 2:4], tables.weight("item")[1, own])


def test_ranking_by_sides_gives_the_scores_of_whole_rows() -> None:
    encoder, ranker = ranker_of()
    ranker.eval()

    sided_CT = ranker.predict_sided(
        encoder.encode(LOG, sides=SHARED_SIDES, with_labels=False),
        encoder.encode(LOG, sides=OWN_SIDES, with_labels=False),
        torch.arange(8),
    )

    torch.testing.assert_close(sided_CT, ranker.predict(encoder.encode(LOG, with_labels=False)), rtol=0, atol=1e-6)
