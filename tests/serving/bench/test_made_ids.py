"""Made ids of a column of row numbers are ones that the table has."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from pydantic import TypeAdapter

from recmoe.client import RankClient
from recmoe.embeddings.tables import PlainTables
from recmoe.export.bundle import ModelBundle, write_bundle
from recmoe.export.replay import Replay
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.schema import FeatureSchema
from recmoe.model import ModelConfig, build_model
from recmoe.ranking import Ranker
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from serving.app import create_app
from serving.bench.bench import BenchSettings, accepted_requests

CONFIG: dict[str, Any] = {
    "inputs": {
        "width": 4,
        "item": "item_id",
        "features": {
            "user_id": {"kind": "id", "side": "user"},
            "item_id": {"kind": "id", "encoding": {"kind": "index", "num_ids": 5}},
        },
    },
    "tasks": {"click": {"kind": "binary", "label": "click"}},
    "model": {"architecture": {"kind": "shared_bottom", "hidden": [8]}},
}


@pytest.fixture
def ranker(tmp_path: Path) -> Ranker:
    """Its items are the row numbers 0 to 4."""
    log = pa.table(
        {"user_id": [f"u{n}" for n in range(10)], "item_id": [n % 5 for n in range(10)], "click": [0, 1] * 5}
    )
    tasks = TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(CONFIG["tasks"]))
    encoder = FeatureEncoder.fit(FeatureSchema.model_validate(CONFIG["inputs"]), [log], tasks.label_columns)
    torch.manual_seed(3)
    model = build_model(
        layout=encoder.layout,
        tasks=tasks,
        config=ModelConfig.model_validate(CONFIG["model"]),
        tables=lambda layout: PlainTables(layout, seed=3, init_std=1.0),
    ).eval()
    with torch.inference_mode():
        predictions_NT = model.predict(encoder.encode(log, with_labels=False)).numpy()
    replay = Replay.capture(log, encoder=encoder, task_names=tasks.names, predictions_NT=predictions_NT)
    write_bundle(
        tmp_path / "rows", name="rows", config=CONFIG, encoder=encoder, model=model, replay=replay, report=None
    )
    return Ranker(ModelBundle.load(tmp_path / "rows"))


def test_row_numbers_are_drawn_within_the_table(ranker: Ranker, serve_app: Any) -> None:
    with serve_app(create_app(ranker)) as url, RankClient(url, timeout_s=60) as client:
        documents, rankings = accepted_requests(client, client.model(), BenchSettings(url, candidates=3, payloads=2))

    ids = [row["item_id"] for document in documents for row in document["candidates"]]
    assert ids == [0] * 6
    assert [len(ranking.items) for ranking in rankings] == [3, 3]
