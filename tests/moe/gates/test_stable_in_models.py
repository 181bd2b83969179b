"""Stable gate inside models: served as trained, explained, refused without an id, and carried to a new vocabulary."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from recmoe.architectures.seam import Outputs, Targets
from recmoe.config import config_from_dict
from recmoe.embeddings.tables import PlainTables
from recmoe.errors import ConfigError
from recmoe.evaluation.gate_features import gate_features
from recmoe.experiment import ExperimentConfig
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES
from recmoe.features.schema import FeatureSchema
from recmoe.growth.dense_names import name_dense
from recmoe.model import ModelConfig, MultiTaskRanker, build_model
from recmoe.moe.gates.stable import StableGate
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet

TASKS = TaskSet({"click": BinaryTaskConfig(label="click"), "buy": BinaryTaskConfig(label="buy")})
LOG = pa.table(
    {
        "user": [f"u{row % 3}" for row in range(24)],
        "page": [["home", "cart", "help"][row % 7 % 3] for row in range(24)],
        "item": [f"i{row % 5}" for row in range(24)],
    }
)
ARCHITECTURES = [
    {"kind": "mmoe", "num_experts": 3},
    {"kind": "ple"},
    {"kind": "hierarchical", "num_groups": 2},
    {"kind": "smes", "num_experts": 4},
]


def model_config(architecture: dict[str, Any]) -> ModelConfig:
    gate = {"kind": "stable", "feature": ["page", "item"], "stage_1_steps": 2, "num_buckets": 5, "width": 4}
    return ModelConfig.model_validate({"architecture": {"gate": gate, "expert_hidden": [4], **architecture}})


def ranker_of(
    architecture: dict[str, Any], *, page_side: str = "context", log: pa.Table = LOG
) -> tuple[FeatureEncoder, MultiTaskRanker]:
    features = {
        "user": {"kind": "id", "side": "user"},
        "page": {"kind": "id", "side": page_side},
        "item": {"kind": "id"},
    }
    schema = FeatureSchema.model_validate({"width": 2, "features": features})
    encoder = FeatureEncoder.fit(schema, [log], ())
    torch.manual_seed(0)
    ranker = build_model(
        layout=encoder.layout,
        tasks=TASKS,
        config=model_config(architecture),
        tables=lambda layout: PlainTables(layout, seed=3, init_std=1.0),
    )
    return encoder, ranker.eval()


def see_batches(encoder: FeatureEncoder, ranker: MultiTaskRanker, num_batches: int) -> None:
    ranker.train()
    for _ in range(num_batches):
        ranker(encoder.encode(LOG, with_labels=False))
    ranker.eval()


@pytest.mark.parametrize("num_batches", [0, 3], ids=["stage 1", "stage 2"])
@pytest.mark.parametrize("side", ["context", "item"])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture["kind"])
def test_served_rows_have_the_experts_and_scores_of_training(
    side: str, architecture: dict[str, Any], num_batches: int
) -> None:
    encoder, ranker = ranker_of(architecture, page_side=side)
    see_batches(encoder, ranker, num_batches)
    whole = encoder.encode(LOG, with_labels=False)

    sided_CT = ranker.predict_sided(
        encoder.encode(LOG, sides=SHARED_SIDES, with_labels=False),
        encoder.encode(LOG, sides=OWN_SIDES, with_labels=False),
        torch.arange(24),
    )

    torch.testing.assert_close(sided_CT, ranker.predict(whole), rtol=0, atol=1e-6)


def test_choice_of_the_second_stage_is_that_of_the_ids_whatever_the_tables_hold() -> None:
    encoder, ranker = ranker_of({"kind": "mmoe", "num_experts": 3})
    see_batches(encoder, ranker, 3)
    batch = encoder.encode(LOG, with_labels=False)
    before_BGE = ranker(batch).gate_uses[0].weights_BGE

    with torch.no_grad():
        for weight in ranker.parameters():
            weight.normal_()

    after_BGE = ranker(batch).gate_uses[0].weights_BGE
    assert torch.equal(after_BGE > 0, before_BGE > 0)
    assert not torch.allclose(after_BGE, before_BGE, atol=0.1)
    pairs = zip(LOG["page"].to_pylist(), LOG["item"].to_pylist(), after_BGE.argmax(dim=2).tolist(), strict=True)
    by_ids: dict[tuple[str, str], list[int]] = {}
    assert all(by_ids.setdefault((page, item), experts) == experts for page, item, experts in pairs)


def test_gates_are_explained_by_what_moves_their_choice() -> None:
    pytest.importorskip("captum")
    encoder, ranker = ranker_of({"kind": "mmoe", "num_experts": 3})
    batch = encoder.encode(LOG, with_labels=False)

    first = gate_features(ranker, batch)
    see_batches(encoder, ranker, 3)
    second = gate_features(ranker, batch)

    assert all(one.moves_FV.sum() > 0.01 and one.gap < 0.01 for one in first)
    # An id decides, and no vector.
    assert all(one.moves_FV.sum() == 0 for one in second)


def test_id_keeps_its_vector_of_the_router_in_another_vocabulary() -> None:
    config = model_config({"kind": "mmoe", "num_experts": 3})
    often = pa.concat_tables([LOG, LOG.filter(pa.compute.equal(LOG["page"], "help")).slice(0, 3)] * 4)

    def named(log: pa.Table) -> tuple[FeatureEncoder, Any]:
        encoder, ranker = ranker_of({"kind": "mmoe", "num_experts": 3}, log=log)
        shapes = {f"ranker.model.{name}": tuple(weight.shape) for name, weight in ranker.model.state_dict().items()}
        return encoder, name_dense(shapes, ranker=ranker, config=config, encoder=encoder)

    (one, names), (other, others) = named(LOG), named(often)

    (name,) = [name for name in names if name.endswith("layer.gates.0.frozen_NK")]
    labels, other_labels = names[name].labels[0], others[name].labels[0]
    assert set(labels) == set(other_labels)
    page = LOG.filter(pa.compute.equal(LOG["page"], "help")).slice(0, 1)
    rows = [int(encoder.encode(page, with_labels=False).values[1]) for encoder in (one, other)]
    assert rows[0] != rows[1]
    assert labels[rows[0]] == other_labels[rows[1]]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture["kind"])
def test_every_gate_of_every_mixture_has_a_router_that_learns(architecture: dict[str, Any]) -> None:
    encoder, ranker = ranker_of(architecture)
    gates = [module for module in ranker.modules() if isinstance(module, StableGate)]

    output = ranker.train()(encoder.encode(LOG, with_labels=False))
    outputs = Outputs(output.logits_BZ, output.gate_uses)
    losses = ranker.model.losses(outputs, Targets(torch.zeros(24, 2), torch.ones(24, 2)))  # type: ignore[operator]

    assert losses.keys() == ranker.model.loss_weights.keys() == {"gates.distilled"}  # type: ignore[union-attr]
    losses["gates.distilled"].backward()
    assert gates
    # Of one expert nothing is to be learned.
    moved = [gate.table_NK.grad is not None and bool(gate.table_NK.grad.any()) for gate in gates]
    assert moved == [len(gate.weight_VD) > 1 for gate in gates]


@pytest.mark.parametrize(
    ("gate", "error"),
    [
        ({}, "gate.feature: name a feature of kind id"),
        ({"feature": ["page", "pgae"]}, "gate.feature.1: no such feature: pgae, did you mean page?"),
        ({"feature": ["price"]}, "gate.feature.0: price has not one id a row; name a feature of kind id"),
        ({"feature": []}, "gate.feature"),
    ],
    ids=["none", "no such", "no id", "empty"],
)
def test_feature_that_has_no_id_is_an_error_with_its_key(gate: dict[str, Any], error: str, tmp_path: Path) -> None:
    config = {
        "name": "shop",
        "data": {"train": str(tmp_path / "log.parquet")},
        "inputs": {"features": {"page": {"kind": "id"}, "price": {"kind": "numeric"}}},
        "tasks": {"ctr": {"kind": "binary", "label": "click"}},
        "model": {"architecture": {"kind": "mmoe", "gate": {"kind": "stable", **gate}}},
    }

    with pytest.raises(ConfigError) as raised:
        config_from_dict(ExperimentConfig, config)

    assert f"model.architecture.{error}" in str(raised.value)
