"""Groups of features: what the config names is what a model reads, in training and in ranking."""

from pathlib import Path

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
from recmoe.model import ModelConfig, MultiTaskRanker, build_model, input_order
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet

LOG = pa.table(
    {
        "user": [f"u{row % 3}" for row in range(8)],
        "page": [f"p{row % 2}" for row in range(8)],
        "item": [f"i{row}" for row in range(8)],
        "price": [float(row) for row in range(8)],
    }
)
SCHEMA = FeatureSchema.model_validate(
    {
        "width": 2,
        "features": {
            "item": {"kind": "id"},
            "user": {"kind": "id", "side": "user"},
            "page": {"kind": "id", "side": "context"},
            "price": {"kind": "numeric"},
        },
    }
)
TASKS = TaskSet({"ctr": BinaryTaskConfig(label="click")})
GROUPS = {"domain": ("page",), "personal": ("price", "user", "item")}
PEPNET = {"kind": "pepnet", "domain": "domain", "personal": "personal", "hidden": [4], "gate_hidden": 3}


def ranker_of() -> tuple[FeatureEncoder, MultiTaskRanker]:
    encoder = FeatureEncoder.fit(SCHEMA, [LOG], ())
    config = ModelConfig.model_validate({"architecture": PEPNET, "groups": GROUPS})
    torch.manual_seed(0)
    ranker = build_model(
        layout=encoder.layout,
        tasks=TASKS,
        config=config,
        tables=lambda layout: PlainTables(layout, seed=3, init_std=1.0),
    )
    return encoder, ranker.eval()


def test_group_holds_the_columns_of_its_features_in_the_order_of_the_input() -> None:
    encoder, ranker = ranker_of()

    inputs = ranker.input_layer(encoder.encode(LOG, with_labels=False)).inputs

    assert [part.feature for part in input_order(encoder.layout)] == ["user", "page", "item", "price"]
    assert isinstance(inputs.x, torch.Tensor)
    assert torch.equal(inputs.groups["domain"], inputs.x[:, 2:4])
    assert torch.equal(inputs.groups["personal"], inputs.x[:, [0, 1, 4, 5, 6]])


def test_ranking_by_sides_gives_the_scores_of_whole_rows() -> None:
    encoder, ranker = ranker_of()

    sided_CT = ranker.predict_sided(
        encoder.encode(LOG, sides=SHARED_SIDES, with_labels=False),
        encoder.encode(LOG, sides=OWN_SIDES, with_labels=False),
        torch.arange(8),
    )

    torch.testing.assert_close(sided_CT, ranker.predict(encoder.encode(LOG, with_labels=False)), rtol=0, atol=1e-6)


def test_feature_or_group_that_is_not_there_is_an_error_with_its_key(tmp_path: Path) -> None:
    config = {
        "name": "shop",
        "data": {"train": str(tmp_path / "log.parquet")},
        "inputs": {"features": {"user": {"kind": "id"}, "page": {"kind": "id"}}},
        "tasks": {"ctr": {"kind": "binary", "label": "click"}},
        "model": {"architecture": {**PEPNET, "personal": "who"}, "groups": {"domain": ["pgae"]}},
    }

    with pytest.raises(ConfigError) as error:
        config_from_dict(ExperimentConfig, config)

    assert "model.groups.domain: no such feature: pgae, did you mean page?" in str(error.value)
    assert "model.architecture.personal: no such group of features: who (there are: domain)" in str(error.value)
