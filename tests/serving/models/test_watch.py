"""The alias of a running server: what it names is loaded and proved, then answers; what does not pass is refused."""

import gc
import logging
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from recmoe.errors import ServingError, StoreError
from recmoe.ranking import Ranker
from recmoe.runs.source import NamedVersions
from serving.app import create_app
from serving.models.holder import ServedModels
from serving.models.metrics import ModelMetrics
from serving.models.refusal import Refusal
from serving.models.source import ModelSource, watch_of
from serving.models.watch import ModelWatch
from serving.orders import WorkerCommand
from serving.settings import ServeSettings

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

Versions = Any
WaitFor = Callable[[Callable[[], bool]], None]
Number = Callable[[str, str], float]

LOOK = WorkerCommand(looks=True)


class Watched:
    """A watch over the registry, and what it has told."""

    def __init__(self, versions: Versions, runs: Path, **changes: Any) -> None:
        self.source = ModelSource("models:/shop@champion", runs=runs, settings=ServeSettings())
        self.loaded: list[str] = []
        self.swapped: list[str | None] = []
        self.refused: list[Refusal] = []
        self.forgiven: list[str] = []
        self._prometheus = CollectorRegistry()
        self.models = ServedModels(lambda: self.source.load_as(None))
        self.models.load()
        named = NamedVersions("shop", "champion", runs=runs)
        self.before_load: Callable[[], None] = lambda: None
        arguments: dict[str, Any] = {
            "aliases": {"champion": "champion", "challenger": "challenger"},
            "load": self._load,
            "metrics": ModelMetrics(self._prometheus),
            "watch_s": 600,
            "on_swap": lambda ranker: self.swapped.append(ranker.info.version),
            "on_refusal": self.refused.append,
            "on_forgiven": self.forgiven.append,
            **changes,
        }
        self.watch = ModelWatch(self.models, named.read, **arguments)
        self.registry = versions.registry

    def _load(self, version: str) -> Ranker:
        self.loaded.append(version)
        self.before_load()
        return self.source.load_version("shop", version)

    @property
    def version(self) -> str | None:
        return self.models.get().info.version

    @property
    def page(self) -> str:
        return generate_latest(self._prometheus).decode()


@pytest.fixture
def watched(versions: Versions, mlflow_folder: Path) -> Iterator[Watched]:
    found = Watched(versions, mlflow_folder)
    found.watch.start()
    yield found
    found.watch.close()


def test_promoted_version_takes_over_and_going_back_loads_nothing(
    watched: Watched, wait_for: WaitFor, number: Number
) -> None:
    first = watched.models.get()

    watched.registry.promote("shop", "2")
    watched.watch.tell(LOOK)
    wait_for(lambda: watched.version == "2")
    watched.registry.rollback("shop")
    watched.watch.tell(LOOK)
    wait_for(lambda: watched.version == "1")

    wait_for(lambda: watched.swapped == ["2", "1"])
    assert watched.models.get() is first
    assert watched.loaded == ["2"]
    assert number(watched.page, 'recmoe_model_swaps_total{outcome="loaded",role="champion"') == 1
    assert number(watched.page, 'recmoe_model_swaps_total{outcome="kept",role="champion"') == 1
    in_use = [line for line in watched.page.splitlines() if line.startswith("recmoe_model_info{")]
    assert sorted((line.split('version="')[1][0], line.split()[-1]) for line in in_use) == [("1", "1.0"), ("2", "0.0")]


def test_version_that_does_not_pass_is_refused_and_the_one_before_goes_on(
    watched: Watched, versions: Versions, wait_for: WaitFor, number: Number, ask: Any, serve_app: Any
) -> None:
    tables = versions.bundle("2") / "dense.safetensors"
    whole = tables.read_bytes()
    tables.write_bytes(b"")

    with serve_app(create_app(watched.models)) as url:
        watched.registry.promote("shop", "2")
        watched.watch.tell(LOOK)
        wait_for(lambda: bool(watched.refused))
        ready, (model,) = ask(f"{url}/readyz"), ask(f"{url}/v1/models").document
        page = ask(f"{url}/metrics").text
    watched.watch.tell(LOOK)
    watched.watch.tell(WorkerCommand(looks=True, retries=True))
    wait_for(lambda: number(watched.page, 'recmoe_model_swaps_total{outcome="refused",role="champion"') == 2)
    tables.write_bytes(whole)
    watched.watch.tell(WorkerCommand(looks=True, retries=True))
    wait_for(lambda: watched.version == "2")

    assert ready.status == 200
    assert ready.document["refused"] == [{"role": "champion", "version": "2"}]
    assert (model["version"], model["refused"][0]["version"]) == ("1", "2")
    assert "dense.safetensors is damaged" in model["refused"][0]["reason"]
    assert number(page, 'recmoe_model_refused{role="champion",version="2"') == 1
    # What is refused again for the same reason is no news.
    assert len(watched.refused) == 1
    assert watched.loaded == ["2", "2", "2"]
    assert watched.forgiven == ["champion"]
    assert watched.models.refused == {}
    assert number(watched.page, 'recmoe_model_refused{role="champion",version="2"') == 0


def test_refused_version_is_not_tried_again_until_the_alias_has_named_another_one(
    watched: Watched, versions: Versions, wait_for: WaitFor
) -> None:
    (versions.bundle("2") / "dense.safetensors").write_bytes(b"")
    watched.registry.promote("shop", "2")
    watched.watch.tell(LOOK)
    wait_for(lambda: bool(watched.refused))

    watched.watch.tell(LOOK)
    watched.registry.rollback("shop")
    watched.watch.tell(LOOK)
    wait_for(lambda: watched.models.refused == {})
    tried_before = list(watched.loaded)
    watched.registry.promote("shop", "2")
    watched.watch.tell(LOOK)
    wait_for(lambda: len(watched.refused) == 2)

    assert tried_before == ["2"]
    assert watched.loaded == ["2", "2"]
    assert watched.version == "1"


def test_version_that_the_alias_leaves_while_it_is_loaded_is_not_used(
    watched: Watched, versions: Versions, wait_for: WaitFor, number: Number
) -> None:
    versions.add()
    watched.before_load = lambda: watched.registry.promote("shop", "3") if len(watched.loaded) == 1 else None

    watched.registry.promote("shop", "2")
    watched.watch.tell(LOOK)
    wait_for(lambda: watched.version == "3")

    assert watched.loaded == ["2", "3"]
    assert watched.swapped == ["3"]
    assert number(watched.page, 'recmoe_model_swaps_total{outcome="superseded",role="champion"') == 1


def test_model_before_the_one_before_is_given_back(watched: Watched, versions: Versions, wait_for: WaitFor) -> None:
    versions.add()
    first = weakref.ref(watched.models.get())
    gc.collect()
    gc.disable()

    try:
        for version in ("2", "3"):
            watched.registry.promote("shop", version)
            watched.watch.tell(LOOK)
            wait_for(lambda: watched.version == version)  # noqa: B023
        # No collector is needed, for it does not look at what was there when the server became ready.
        wait_for(lambda: first() is None)
    finally:
        gc.enable()


def test_registry_that_does_not_answer_is_told_once_and_serving_goes_on(
    watched: Watched, mlflow_folder: Path, wait_for: WaitFor, number: Number, caplog: pytest.LogCaptureFixture
) -> None:
    watched.registry.promote("shop", "2")
    watched.watch.tell(LOOK)
    wait_for(lambda: watched.version == "2")

    database = mlflow_folder / "mlflow.db"
    with caplog.at_level(logging.WARNING):
        whole = database.read_bytes()
        database.write_bytes(b"no database" * 1000)
        for count in (1, 2):
            watched.watch.tell(LOOK)
            wait_for(lambda: number(watched.page, "recmoe_registry_failures_total") >= count)  # noqa: B023
        database.write_bytes(whole)
        watched.registry.rollback("shop")
        watched.watch.tell(LOOK)
        wait_for(lambda: watched.version == "1")
        wait_for(lambda: len(caplog.records) >= 2)

    told = [record.getMessage() for record in caplog.records if record.name == "serving.models.watch"]
    assert told[0].startswith("the alias cannot be followed, version 2 of shop is served: ")
    assert told[-1] == "the alias can be followed again; version 1 of shop is served"
    assert len(told) == 2


def test_version_whose_store_does_not_answer_is_tried_again(watched: Watched, wait_for: WaitFor) -> None:
    def away_at_first() -> None:
        if len(watched.loaded) == 1:
            raise StoreError("redis://cache does not answer")

    watched.before_load = away_at_first
    watched.registry.promote("shop", "2")
    watched.watch.tell(LOOK)
    wait_for(lambda: "champion" in watched.models.refused)
    watched.watch.tell(LOOK)
    wait_for(lambda: watched.version == "2")

    assert watched.loaded == ["2", "2"]
    # Other workers are not told: theirs may answer.
    assert watched.refused == []


def test_champion_whose_alias_is_taken_away_goes_on(
    watched: Watched, wait_for: WaitFor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        watched.registry._client.delete_registered_model_alias("shop", "champion")
        watched.watch.tell(LOOK)
        wait_for(lambda: bool(caplog.records))

    assert watched.version == "1"
    assert caplog.records[0].getMessage().endswith("is served: no version has the alias champion any more")


def test_challenger_comes_and_goes_with_its_alias_and_is_not_loaded_twice(
    watched: Watched, wait_for: WaitFor, number: Number
) -> None:
    watched.registry.promote("shop", "2", alias="challenger")
    watched.watch.tell(LOOK)
    wait_for(lambda: watched.models.challenger is not None)
    challenger = watched.models.challenger
    watched.registry.promote("shop", "2")
    watched.registry._client.delete_registered_model_alias("shop", "challenger")
    watched.watch.tell(LOOK)
    wait_for(lambda: watched.version == "2" and watched.models.challenger is None)

    assert watched.models.get() is challenger
    assert watched.loaded == ["2"]
    wait_for(lambda: number(watched.page, 'recmoe_model_swaps_total{outcome="removed",role="challenger"') == 1)


def test_light_version_comes_and_goes_with_its_alias_and_the_log_says_while_there_is_none(
    versions: Versions,
    mlflow_folder: Path,
    wait_for: WaitFor,
    number: Number,
    caplog: pytest.LogCaptureFixture,
) -> None:
    watched = Watched(versions, mlflow_folder, aliases={"champion": "champion", "light": "light"})
    timed: list[str | None] = []
    watched.models.on_light = lambda ranker: timed.append(ranker.info.version)
    client = watched.registry._client

    with caplog.at_level(logging.WARNING):
        watched.watch.start()
        wait_for(lambda: len(caplog.records) == 1)
        watched.registry.promote("shop", "1", alias="light")
        watched.watch.tell(LOOK)
        wait_for(lambda: len(caplog.records) == 2)
        is_itself = watched.models.light is watched.models.get(), watched.models.lighter
        watched.registry.promote("shop", "2", alias="light")
        watched.watch.tell(LOOK)
        wait_for(lambda: watched.models.lighter is not None)
        lighter = watched.models.lighter
        in_use = [(role, ranker.info.version) for role, ranker in watched.models.by_role()]
        client.delete_registered_model_alias("shop", "light")
        watched.watch.tell(LOOK)
        wait_for(lambda: len(caplog.records) == 3)
    watched.watch.close()

    absent = "no version has the alias light; recmoe promote MODEL VERSION --alias light"
    assert [record.getMessage() for record in caplog.records] == [
        f"requests that would be late are refused: {reason}"
        for reason in (absent, "version 1 is the champion itself", absent)
    ]
    assert is_itself == (True, None)
    assert lighter is not None
    assert (lighter.info.version, in_use) == ("2", [("champion", "1"), ("light", "2")])
    assert (watched.models.light, watched.models.lighter) == (None, None)
    assert (timed, watched.loaded) == (["1", "2"], ["2"])
    assert number(watched.page, 'recmoe_model_swaps_total{outcome="removed",role="light"') == 1


def test_version_that_another_worker_refuses_is_left(watched: Watched, wait_for: WaitFor) -> None:
    refusals = [Refusal(role=role, version="2", reason="of another", at="now") for role in ("champion", "challenger")]
    watched.registry.promote("shop", "2")
    watched.registry.promote("shop", "2", alias="challenger")
    watched.watch.tell(LOOK)
    wait_for(lambda: watched.version == "2" and watched.models.challenger is not None)

    for refusal in refusals:
        watched.watch.tell(WorkerCommand(refuses=refusal))
    wait_for(lambda: len(watched.models.refused) == 2)
    watched.watch.tell(LOOK)

    assert watched.version == "1"
    assert watched.models.challenger is None
    assert watched.swapped == ["2", "1"]
    assert watched.refused == []


def test_worker_waits_for_its_turn_to_load_and_not_to_go_back(
    versions: Versions, mlflow_folder: Path, wait_for: WaitFor
) -> None:
    turn = threading.Lock()
    watched = Watched(versions, mlflow_folder, turn=turn)
    watched.watch.start()
    watched.registry.promote("shop", "2")
    watched.watch.tell(LOOK)
    wait_for(lambda: watched.version == "2")

    with turn:
        watched.registry.rollback("shop")
        watched.watch.tell(LOOK)
        wait_for(lambda: watched.version == "1")
        versions.add()
        watched.registry.promote("shop", "3")
        watched.watch.tell(LOOK)
        loaded_before = list(watched.loaded)
    wait_for(lambda: watched.version == "3")
    watched.watch.close()

    assert loaded_before == ["2"]
    assert watched.loaded == ["2", "3"]


def test_source_that_names_no_alias_is_not_watched(tmp_path: Path) -> None:
    assert NamedVersions.of("models:/shop/3", runs=tmp_path) is None
    assert NamedVersions.of(str(tmp_path), runs=tmp_path) is None
    found = NamedVersions.of("models:/shop@champion", runs=tmp_path)
    assert found is not None
    assert (found.name, found.alias) == ("shop", "champion")


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"shadow_share": 0.1}, "shadow_share"),
        ({"challenger_share": 0.1, "split_by": "user_id"}, "challenger_share"),
        ({"webhook_secret_file": "secret"}, "webhook_secret_file"),
        ({"late": "light"}, "late"),
    ],
)
def test_settings_that_need_an_alias_are_refused_without_one(
    bundle_path: Path, tmp_path: Path, settings: dict[str, Any], name: str
) -> None:
    source = ModelSource(str(bundle_path), runs=tmp_path, settings=ServeSettings(**settings))

    with pytest.raises(ServingError, match=rf"^{name}: .* names no alias; serve models:/NAME@ALIAS"):
        watch_of(
            source,
            ServedModels(lambda: source.load_as(None)),
            metrics=ModelMetrics(CollectorRegistry()),
            commands=queue.SimpleQueue(),
            on_swap=lambda _: None,
            on_refusal=lambda _: None,
            on_forgiven=lambda _: None,
        )
