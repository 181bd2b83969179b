"""Made ids of a column of row numbers are ones that the table has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recmoe.client import RankClient
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
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
def ranker(tmp_path: Path, write_model: Callable[..., Path]) -> Ranker:
    """Its items are the row numbers 0 to 4."""
    log = pa.table(
        {"user_id": [f"u{n}" for n in range(10)], "item_id": [n % 5 for n in range(10)], "click": [0, 1] * 5}
    )
    return Ranker(ModelBundle.load(write_model(tmp_path / "rows", CONFIG, log)))


def test_row_numbers_are_drawn_within_the_table(ranker: Ranker, serve_app: Any) -> None:
    with serve_app(create_app(ranker)) as url, RankClient(url, timeout_s=60) as client:
        documents, rankings = accepted_requests(client, client.model(), BenchSettings(url, candidates=3, payloads=2))

    ids = [row["item_id"] for document in documents for row in document["candidates"]]
    assert ids == [0] * 6
    assert [len(ranking.items) for ranking in rankings] == [3, 3]
