"""The scores of a request equal those of the model in training, for every architecture, trunk and side."""

import typing
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from recmoe.architectures import ArchitectureConfig
from recmoe.embeddings.tables import PlainTables
from recmoe.export.bundle import write_bundle
from recmoe.export.replay import Replay
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.schema import FeatureSchema
from recmoe.model import ModelConfig, build_model
from recmoe.ranking import Ranker, RankRequest
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet

KINDS = [member.model_fields["kind"].default for member in typing.get_args(typing.get_args(ArchitectureConfig)[0])]

TRUNKS = {
    "rank_mixer": {"tokens": 3, "head_width": 4, "num_experts": 3},
    "attention_heads": {"tokens": 3, "width": 12, "num_heads": 4, "head_width": 8, "out": 16},
}
"""Below the architecture of the shop's config."""


def requests_of(rows: pa.Table, schema: FeatureSchema) -> list[RankRequest]:
    """Each row as a request with one candidate, as a product would send it."""
    requests = []
    for row in rows.to_pylist():
        sides: dict[str, dict[str, Any]] = {"user": {}, "context": {}, "item": {}}
        for name, feature in schema.features.items():
            column = feature.column or name
            sides[feature.side][column] = row[column]
        sides["item"][schema.item] = row[schema.item]
        requests.append(
            RankRequest.parse({"user": sides["user"], "context": sides["context"], "candidates": [sides["item"]]})
        )
    return requests


@pytest.mark.parametrize(
    ("kind", "sides"),
    [
        *((kind, "as they are") for kind in (*KINDS, *TRUNKS)),
        *((kind, sides) for kind in ("ple", *TRUNKS) for sides in ("all user", "all item")),
    ],
)
def test_served_scores_equal_training_scores(
    kind: str, sides: str, shop_log: pa.Table, shop_config: dict[str, Any], tmp_path: Any
) -> None:
    changes = {"trunk": {"kind": kind, **TRUNKS[kind]}} if kind in TRUNKS else {"architecture": {"kind": kind}}
    config = {**shop_config, "model": {**shop_config["model"], **changes}}
    if sides != "as they are":
        side = sides.split()[1]
        features = {name: {**feature, "side": side} for name, feature in config["inputs"]["features"].items()}
        config["inputs"] = {**config["inputs"], "features": features}
    schema = FeatureSchema.model_validate(config["inputs"])
    tasks = TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(config["tasks"]))
    encoder = FeatureEncoder.fit(schema, [shop_log], tasks.label_columns)
    torch.manual_seed(0)
    model = build_model(
        layout=encoder.layout,
        tasks=tasks,
        config=ModelConfig.model_validate(config["model"]),
        tables=lambda layout: PlainTables(layout, seed=0, init_std=1.0),
    ).eval()
    for parameter in model.parameters():
        # Wider than fresh weights, so that rows differ.
        nn.init.normal_(parameter, std=0.1)
    with torch.inference_mode():
        trained_NT = model.predict(encoder.encode(shop_log)).numpy()
    replay = Replay.capture(
        shop_log.slice(0, 32), encoder=encoder, task_names=tasks.names, predictions_NT=trained_NT[:32]
    )
    write_bundle(tmp_path / "b", name="shop", config=config, encoder=encoder, model=model, replay=replay)

    ranker = Ranker.load(tmp_path / "b")
    responses = ranker.rank_many(requests_of(shop_log, schema))

    served_NT = np.array([list(response.items[0].tasks.values()) for response in responses])
    assert np.ptp(trained_NT[:, 0]) > 0.002
    np.testing.assert_allclose(served_NT, trained_NT, atol=1e-5, rtol=0)
    np.testing.assert_allclose(ranker.score(shop_log), trained_NT, atol=1e-5, rtol=0)
