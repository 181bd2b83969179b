"""A trained mixture, and what pruning leaves of it, behind ``serve --late light``: each answer is its version's."""

import math
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from recmoe.export.bundle import ModelBundle
from recmoe.export.lineage import Lineage
from recmoe.ranking import Ranker, RankRequest
from recmoe.registry.registry import Registry
from recmoe.runs.prune import prune_experts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

LARGE = "{kind: mmoe, num_experts: 16, expert_hidden: [1024, 512]}"
REQUESTS: list[dict[str, Any]] = [
    {
        "user": {"user_id": f"u{user}", "age": 20 + user},
        "candidates": [{"item_id": 100 + place % 30, "price": place + user} for place in range(500)],
    }
    for user in range(4)
]


@pytest.fixture
def road(mlflow_folder: Path, tmp_path: Path, make_experiment: Any, train: Any) -> dict[str, Ranker]:
    """Version 1 of a model, which was trained and is the champion, and version 2, a sixteenth of it, which is light."""
    config = make_experiment(tmp_path, f"model.architecture={LARGE}", "training.max_steps=5")
    path = train(config, tmp_path / "run").folder.bundle
    full = ModelBundle.load(path)
    lineage = Lineage("prune-experts", "models:/shop@champion", full.digest)
    prune_experts(full, tmp_path / "pruned", keep=1, lineage=lineage, cache_dir=tmp_path / "cache")
    registry = Registry.connect(folder=mlflow_folder)
    paths = {registry.register(one, name="shop").version: one for one in (path, tmp_path / "pruned")}
    registry.promote("shop", "1")
    registry.promote("shop", "2", alias="light")
    return {version: Ranker.load(one, version=version) for version, one in paths.items() if version is not None}


def took_s(ranker: Ranker) -> float:
    """Seconds for a request, at best."""
    found = math.inf
    for _ in range(3):
        start_s = time.perf_counter()
        ranker.rank(RankRequest.parse(REQUESTS[0]))
        found = min(found, time.perf_counter() - start_s)
    return found


@pytest.mark.parametrize("workers", ["1", "2"])
def test_answers_that_would_be_late_are_those_of_fewer_experts(
    workers: str, road: dict[str, Ranker], start_server: Callable[..., Any], ask: Any, wait_for: Any, number: Any
) -> None:
    expected = {
        (version, user): [item.score for item in ranker.rank(RankRequest.parse(request)).items]
        for version, ranker in road.items()
        for user, request in enumerate(REQUESTS)
    }
    server = start_server("models:/shop@champion", "--late", "light", "--threads", "1", "--workers", workers)
    wait_for(lambda: ask(f"{server.url}/readyz").document["light"] == "2")
    # Time for some rankings, when many more come at once.
    soon_ms = 12_000 * took_s(road["1"])

    def rank(call: int, deadline_ms: float = soon_ms) -> Any:
        return ask(f"{server.url}/v1/rank", REQUESTS[call % 4], {"X-Deadline-Ms": f"{deadline_ms:.3f}"})

    unhurried = rank(0, 100_000)
    with ThreadPoolExecutor(48) as clients:
        answers = list(clients.map(rank, range(144)))
    page = ask(f"{server.url}/metrics").text
    server.process.send_signal(signal.SIGTERM)

    assert unhurried.document["model"]["version"] == "1"
    assert {answer.status for answer in answers} <= {200, 429, 504}
    num_lighter = 0
    for call, answer in [(0, unhurried), *((call, one) for call, one in enumerate(answers) if one.status == 200)]:
        model, warnings = answer.document["model"], answer.document["warnings"]
        is_marked = "lighter_model" in {warning["code"] for warning in warnings}
        assert [item["score"] for item in answer.document["items"]] == pytest.approx(
            expected[model["version"], call % 4], abs=1e-5
        )
        assert model["digest"] == road[model["version"]].info.digest
        assert is_marked == (model["version"] == "2")
        num_lighter += is_marked
    assert num_lighter > 0
    assert number(page, "recmoe_rank_lighter_total") == num_lighter
    assert server.process.wait(timeout=120) == 0
