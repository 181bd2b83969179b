"""``recmoe serve`` far from the registry: a swap to a version that is a delta fetches what differs and nothing else."""

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recmoe.ranking import Ranker, RankRequest
from recmoe.registry.registry import Registry
from tests.large_shop import with_changed_rows
from tests.mlflow_server import mlflow_server
from tests.serving.models.clients import Clients

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

StartServer = Callable[..., Any]
WaitFor = Callable[[Callable[[], bool]], None]
Number = Callable[[str, str], float]

REQUESTS: list[dict[str, Any]] = [
    {
        "user": {"user_id": f"u{user}", "age": 20 + user},
        "candidates": [{"item_id": 100 + place, "price": place + user} for place in range(1, 30)],
    }
    for user in range(5)
]


@pytest.fixture
def registry(mlflow_folder: Path, tmp_path: Path) -> Iterator[Registry]:
    with mlflow_server(mlflow_folder / "mlflow.db", tmp_path / "artifacts") as (url, _):
        yield Registry.connect(url, folder=tmp_path)


@pytest.fixture
def rankers(registry: Registry, large_bundle_path: Path, tmp_path: Path) -> dict[str, Ranker]:
    """Versions 1 to 3 as they are offline; 2 is a delta of 1, and 3 of 2. Version 1 is the champion."""
    paths, found = [large_bundle_path], {}
    for number in (2, 3):
        paths.append(with_changed_rows(paths[-1], tmp_path / f"bundle-{number}", seed=number))
    for number, path in enumerate(paths, start=1):
        base = None if number == 1 else str(number - 1)
        registered = registry.register(path, base=base, cache=tmp_path / "cache")
        assert registered.transfer is not None
        assert (registered.transfer.delta_of is None) == (number == 1)
        found[str(number)] = Ranker.load(path, version=str(number))
    registry.promote("shop", "1")
    return found


def scores(ranker: Ranker, request: dict[str, Any]) -> list[float | None]:
    return [item.score for item in ranker.rank(RankRequest.parse(request)).items]


def test_swap_to_a_delta_fetches_only_that_and_answers_as_the_registered_bundle(
    registry: Registry,
    rankers: dict[str, Ranker],
    start_server: StartServer,
    wait_for: WaitFor,
    number: Number,
    ask: Any,
    tmp_path: Path,
) -> None:
    server = start_server(
        "models:/shop@champion",
        *("--registry", registry.uri, "--watch-s", "0.2", "--deadline-ms", "120000", "--queue", "1000"),
    )

    def fetched(form: str) -> float:
        return number(ask(f"{server.url}/metrics").text, f'recmoe_model_fetched_bytes_total{{form="{form}"')

    whole, deltas = fetched("whole"), []
    with Clients(server.url, REQUESTS) as clients:
        for version in ("1", "2", "3"):
            registry.promote("shop", version)
            wait_for(lambda version=version: clients.versions[version] > 10)
            deltas.append(fetched("delta"))
    registry.rollback("shop")
    wait_for(lambda: ask(f"{server.url}/v1/rank", REQUESTS[0]).document["model"]["version"] == "2")
    after = fetched("delta")
    server.process.send_signal(signal.SIGTERM)
    lines = [line.rstrip() for line in server.process.stdout]

    assert (clients.faults, clients.lost) == ([], [])
    for place, answer in clients.answers:
        ranker = rankers[answer["model"]["version"]]
        assert [item["score"] for item in answer["items"]] == scores(ranker, REQUESTS[place])
        assert answer["model"]["digest"] == ranker.info.digest
    assert scores(rankers["1"], REQUESTS[0]) != scores(rankers["2"], REQUESTS[0])
    assert fetched_once(deltas, whole)
    assert after == deltas[-1]
    assert server.process.wait(timeout=120) == 0
    assert re.fullmatch(r"fetched [\d,]+ bytes, whole", lines[1])
    swaps = [line for line in lines if " from now on" in line]
    told = r"serving shop version {} from now on, fetched [\d,]+ bytes, what differs from version {} of model shop"
    assert re.match(told.format(2, 1), swaps[0])
    assert re.match(told.format(3, 2), swaps[1])
    assert swaps[2:] == ["serving shop version 2 from now on"]
    assert len([path for path in (tmp_path / "runs" / "cache" / "shop").iterdir() if path.is_dir()]) == 3


def fetched_once(deltas: list[float], whole: float) -> bool:
    """Whether nothing was fetched as a delta at first, and then little each time."""
    none, first, second = deltas
    return none == 0 < first <= 0.1 * whole and first < second <= 2.5 * first
