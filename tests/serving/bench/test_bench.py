"""A load on a real server: what was sent is what is counted."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from recmoe.cli import app
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
from serving.app import create_app


@pytest.fixture(scope="module")
def url(bundle: ModelBundle, serve_app: Any) -> Iterator[str]:
    with serve_app(create_app(Ranker(bundle, version="4"))) as url:
        yield url


def bench(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["bench", "serve", *arguments])


def assert_counts_add_up(load: dict[str, Any], *, candidates: int) -> None:
    times = load["latency_ms"]
    assert load["num_requests"] == load["num_ok"] + load["num_refused"] + sum(load["other"].values())
    assert load["ok_per_s"] == pytest.approx(load["num_ok"] / load["elapsed_s"])
    assert load["candidates_per_s"] == pytest.approx(load["ok_per_s"] * candidates)
    assert 0 < times["p50"] <= times["p90"] <= times["p99"] <= times["max"]
    assert load["health_ms"]["p50"] > 0
    assert load["num_health_failures"] == 0


@pytest.mark.slow
def test_saturation_is_found_and_shares_of_it_are_measured(url: str, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"

    run = bench(url, "--duration", "1", "--connections", "1,4", "--candidates", "20", "--json", str(file))

    assert run.exit_code == 0, run.output
    found = json.loads(file.read_text())
    assert [load["connections"] for load in found["closed"]] == [1, 4]
    assert [load["share"] for load in found["open"]] == [0.25, 0.5, 0.75, 1.0, 1.5]
    assert found["saturation_per_s"] == max(load["ok_per_s"] for load in found["closed"])
    for load in [*found["closed"], *found["open"]]:
        assert_counts_add_up(load, candidates=20)
    for load in found["open"]:
        assert load["rate"] == pytest.approx(load["share"] * found["saturation_per_s"])
        assert load["num_requests"] == max(1, round(load["rate"] * 1))
    assert found["model"]["name"] == "shop"
    assert found["checked"]["num_wrong"] == 0
    assert found["checked"]["num_equal"] >= 64
    assert "150%" in run.output
