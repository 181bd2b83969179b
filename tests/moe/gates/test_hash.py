"""Hash gate: ids and their experts, in training and in serving; experts learn what their ids need."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from recmoe.config import config_from_dict
from recmoe.embeddings.tables import PlainTables
from recmoe.errors import ConfigError
from recmoe.experiment import ExperimentConfig
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES
from recmoe.features.schema import FeatureSchema
from recmoe.model import ModelConfig, MultiTaskRanker, build_model
from recmoe.moe.gates.hash import HashGate, HashGateConfig
from recmoe.moe.linear import id_group
from recmoe.moe.mixture import MixtureConfig
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet

TASKS = TaskSet({"click": BinaryTaskConfig(label="click"), "buy": BinaryTaskConfig(label="buy")})
PAGES = ["home", "home", "home", "home", "cart", "cart", "cart", "help"]
LOG = pa.table(
    {"user": [f"u{row % 3}" for row in range(8)], "page": PAGES, "item": [f"i{row % 5}" for row in range(8)]}
)


def ranker_of(page_side: str, architecture: dict[str, Any]) -> tuple[FeatureEncoder, MultiTaskRanker]:
    features = {
        "user": {"kind": "id", "side": "user"},
        "page": {"kind": "id", "side": page_side},
        "item": {"kind": "id"},
    }
    schema = FeatureSchema.model_validate({"width": 2, "features": features})
    encoder = FeatureEncoder.fit(schema, [LOG], ())
    gate = {"kind": "hash", "feature": "page"}
    torch.manual_seed(0)
    ranker = build_model(
        layout=encoder.layout,
        tasks=TASKS,
        config=ModelConfig.model_validate({"architecture": {"gate": gate, "expert_hidden": [4], **architecture}}),
        tables=lambda layout: PlainTables(layout, seed=3, init_std=1.0),
    )
    return encoder, ranker.eval()


def split_mix(number: int) -> int:
    """SplitMix64 in whole numbers."""
    z = (number + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z // 2**30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z // 2**27) * 0x94D049BB133111EB % 2**64
    return z ^ z // 2**31


@pytest.mark.parametrize("num_experts", [1, 3, 8])
@pytest.mark.parametrize("assignment", ["balanced", "random"])
def test_expert_of_a_row_is_that_of_its_id(assignment: Any, num_experts: int) -> None:
    gate = HashGate(num_experts=num_experts, feature="page", assignment=assignment)
    row_B = torch.tensor([0, 1, 2, 3, 9, 9, 123_456_789, 2**40 + 7])

    p_BV = gate(torch.randn(8, 5), {id_group("page"): row_B})

    for row, p_V in zip(row_B.tolist(), p_BV.tolist(), strict=True):
        expert = (row if assignment == "balanced" else split_mix(row) // 2) % num_experts
        assert p_V == [float(v == expert) for v in range(num_experts)]


def test_random_hash_spreads_ids_and_balanced_one_deals_them_out() -> None:
    row_B = torch.arange(1, 801)

    counts = {}
    for assignment in ("balanced", "random"):
        gate = HashGate(num_experts=8, feature="page", assignment=assignment)
        counts[assignment] = gate(torch.zeros(800, 1), {id_group("page"): row_B}).sum(dim=0)

    assert counts["balanced"].tolist() == [100.0] * 8
    assert counts["random"].min() > 70
    assert counts["random"].max() < 130


@pytest.mark.parametrize("side", ["context", "item"])
@pytest.mark.parametrize(
    "architecture",
    [{"kind": "mmoe", "num_experts": 3}, {"kind": "ple"}, {"kind": "hierarchical", "num_groups": 2}],
    ids=lambda architecture: architecture["kind"],
)
def test_served_rows_have_the_experts_and_scores_of_training(side: str, architecture: dict[str, Any]) -> None:
    encoder, ranker = ranker_of(side, architecture)
    whole = encoder.encode(LOG, with_labels=False)

    sided_CT = ranker.predict_sided(
        encoder.encode(LOG, sides=SHARED_SIDES, with_labels=False),
        encoder.encode(LOG, sides=OWN_SIDES, with_labels=False),
        torch.arange(8),
    )

    torch.testing.assert_close(sided_CT, ranker.predict(whole), rtol=0, atol=1e-6)
    chosen_BE = ranker(whole).gate_uses[0].weights_BGE[:, 0].argmax(dim=1).tolist()
    # home is row 1, cart 2, help 3.
    assert len(set(chosen_BE[:4])) == len(set(chosen_BE[4:7])) == 1
    assert chosen_BE[0] != chosen_BE[4]


def test_new_and_missing_ids_share_the_expert_of_row_zero() -> None:
    encoder, ranker = ranker_of("item", {"kind": "mmoe", "num_experts": 3})
    new = LOG.set_column(1, "page", [["home", "cart", "help", "new", None, "home", "home", "home"]])

    use = ranker(encoder.encode(new, with_labels=False)).gate_uses[0]

    # Rows 1, 2, 3 and 0 of the table, dealt out to three experts.
    assert use.weights_BGE[:5, 0].argmax(dim=1).tolist() == [1, 2, 0, 0, 0]


def test_experts_learn_what_the_ids_that_they_get_need() -> None:
    torch.manual_seed(0)
    x_BD, row_B = torch.randn(400, 3), torch.randint(1, 5, (400,))
    wanted_B = torch.where(row_B % 2 == 0, x_BD[:, 0], -x_BD[:, 0])
    layer = MixtureConfig(gate=HashGateConfig(feature="page"), expert_hidden=(8,)).layer(
        experts={f"shared.{expert}": 0 for expert in range(2)}, gates={"ctr": 0}, mask_GE=[[True] * 2], in_features=3
    )
    groups = {id_group("page"): row_B}
    read = torch.nn.Linear(8, 1)
    optimizer = torch.optim.Adam([*layer.parameters(), *read.parameters()], lr=0.02)

    for _ in range(200):
        loss = (read(layer([x_BD], groups)[0][0])[:, 0] - wanted_B).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    # Without the id, nothing of the answer can be known: its mean in every x is 0.
    assert loss.item() < 0.05
    assert wanted_B.square().mean() > 0.8


@pytest.mark.parametrize(
    ("gate", "error"),
    [
        ({}, "gate.feature: name a feature of kind id"),
        ({"feature": "pgae"}, "gate.feature: no such feature: pgae, did you mean page?"),
        (
            {"feature": "price"},
            "gate.feature: price has not one id a row; name a feature of kind id",
        ),
    ],
    ids=["none", "no such", "no id"],
)
def test_feature_that_cannot_be_hashed_is_an_error_with_its_key(
    gate: dict[str, str], error: str, tmp_path: Path
) -> None:
    config = {
        "name": "shop",
        "data": {"train": str(tmp_path / "log.parquet")},
        "inputs": {"features": {"page": {"kind": "id"}, "price": {"kind": "numeric"}}},
        "tasks": {"ctr": {"kind": "binary", "label": "click"}},
        "model": {"architecture": {"kind": "mmoe", "gate": {"kind": "hash", **gate}}},
    }

    with pytest.raises(ConfigError) as raised:
        config_from_dict(ExperimentConfig, config)

    assert f"model.architecture.{error}" in str(raised.value)
