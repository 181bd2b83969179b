"""A running server takes up new stores, refuses those that do not pass, and tells when one is away."""

import logging
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recmoe.errors import DataError, StoreError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker, RankRequest
from recmoe.ranking.items import ArrowStore
from recmoe.ranking.items.redis_client import RedisClient
from recmoe.runs.stores import write_store
from serving.app import create_app
from serving.models.holder import ServedModels
from serving.models.source import ModelSource, store_watch_of
from serving.settings import ServeSettings
from serving.stores import StoreWatch
from tests.serving.models.clients import Clients

WriteModel = Callable[[Path, dict[str, Any], pa.Table], Path]
REQUEST: dict[str, Any] = {
    "user": {"user_id": "u3"},
    "context": {"hour": 12},
    "candidates": {"item_id": [101, 102, 7]},
}
USERS = pa.table({"user_id": ["u3", "u4"], "tags": [["red"], ["silk", "new"]], "age": [40, 50]})


def items(price: float, num_rows: int = 40, **columns: list[Any]) -> pa.Table:
    """Items 101 and on, all of one price."""
    ids = range(101, 101 + num_rows)
    words = pa.array([["red", "silk"][: number % 3] for number in ids], pa.list_(pa.string()))
    return pa.table({"item_id": list(ids), "price": [price] * num_rows, "words": words, **columns})


def expected(bundle: ModelBundle, table: pa.Table, user: dict[str, Any] | None = None) -> list[Any]:
    """Scores of the request as one without a store gives all columns."""
    rows = {row["item_id"]: row for row in table.to_pylist()}
    candidates = [rows.get(number, {"item_id": number}) for number in REQUEST["candidates"]["item_id"]]
    request = RankRequest.parse({**REQUEST, "user": user or REQUEST["user"], "candidates": candidates})
    return [item.score for item in Ranker.load(bundle).rank(request).items]


class Served:
    """An app whose models look in stores, and the watch over these, which is asked to look by hand."""

    def __init__(self, bundle_path: Path, tmp_path: Path, ask: Any, **settings: Any) -> None:
        self._ask, self.url = ask, ""
        source = ModelSource(str(bundle_path), runs=tmp_path, settings=ServeSettings(threads=1, **settings))
        self.models = ServedModels(lambda: source.load_as(None))
        self.models.load()
        if self.models.error is not None:
            raise self.models.error
        self.app = create_app(self.models, source.settings)
        watch = store_watch_of(source, self.models, metrics=self.app.state.metrics)
        assert watch is not None
        self.watch: StoreWatch = watch

    def ask(self, **changes: Any) -> Any:
        return self._ask(f"{self.url}/v1/rank", {**REQUEST, **changes})

    def scores(self, **changes: Any) -> list[Any]:
        answer = self.ask(**changes)
        assert answer.status == 200, answer.text
        return [item["score"] for item in answer.document["items"]]

    def number(self, begin: str) -> float:
        lines = [line for line in self._ask(f"{self.url}/metrics").text.splitlines() if line.startswith(begin)]
        return sum(float(line.split()[-1]) for line in lines)


Serve = Callable[..., Served]


@pytest.fixture
def serve(bundle_path: Path, tmp_path: Path, ask: Any, serve_app: Any) -> Iterator[Serve]:
    """``serve(items=…, users=…)``."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Served:
            served = Served(bundle_path, tmp_path, ask, **settings)
            served.url = stack.enter_context(serve_app(served.app))
            return served

        yield make


def test_new_store_in_files_is_taken_up(serve: Serve, bundle: ModelBundle, tmp_path: Path) -> None:
    folder = tmp_path / "items"
    ArrowStore.build(folder, items(2.0), bundle.encoder)
    served = serve(items=str(folder), items_known_bytes=2**20)
    before, first = served.scores(), served.models.get()

    ArrowStore.build(folder, items(30.0, 20), bundle.encoder)
    unseen = served.scores()
    served.watch.look()
    after = served.scores()
    served.watch.look()

    assert before == unseen == pytest.approx(expected(bundle, items(2.0)), abs=1e-5)
    assert after == pytest.approx(expected(bundle, items(30.0)), abs=1e-5)
    assert after != pytest.approx(before, abs=1e-5)
    assert first.items is not None
    assert first.items.num_known == 40
    assert (served.number("recmoe_items "), served.number("recmoe_items_known")) == (20, 20)
    assert served.number('recmoe_items_swaps_total{outcome="loaded"}') == 1
    assert served.number("recmoe_items_refused") == 0
    assert served.models.get() is not first


def test_broken_store_is_refused_and_the_one_before_serves_on(
    serve: Serve, bundle: ModelBundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "items"
    ArrowStore.build(folder, items(2.0), bundle.encoder)
    served = serve(items=str(folder), items_known_bytes=2**20)
    before = served.scores()

    ArrowStore.build(folder, items(30.0), bundle.encoder)
    (folder / "keys.bin").write_bytes(b"12345678")
    served.watch.look()
    served.watch.look()
    is_refused = served.number("recmoe_items_refused")
    during = served.scores()
    ArrowStore.build(folder, items(30.0), bundle.encoder)
    served.watch.look()

    assert (before, is_refused) == (during, 1)
    assert served.number('recmoe_items_swaps_total{outcome="refused"}') == 1
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].startswith("the new store of items is refused, the one before stays: ")
    assert "keys.bin has 8 bytes, not 320" in errors[0]
    assert served.scores() == pytest.approx(expected(bundle, items(30.0)), abs=1e-5)
    assert served.number("recmoe_items_refused") == 0


def test_store_with_which_the_last_requests_are_not_answered_is_refused(
    serve: Serve, bundle: ModelBundle, tmp_path: Path
) -> None:
    folder = tmp_path / "items"
    ArrowStore.build(folder, items(2.0), bundle.encoder)
    served = serve(items=str(folder))
    before = served.scores()
    served.watch._prove = _refuses

    ArrowStore.build(folder, items(30.0), bundle.encoder)
    served.watch.look()

    assert served.scores() == before
    assert served.number('recmoe_items_swaps_total{outcome="refused"}') == 1


def _refuses(_: Ranker) -> None:
    raise DataError("it does not answer as the one before")


def test_folder_that_is_gone_is_told_once_and_served_on(
    serve: Serve, bundle: ModelBundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "items"
    ArrowStore.build(folder, items(2.0), bundle.encoder)
    served = serve(items=str(folder))
    before = served.scores()

    shutil.rmtree(folder)
    served.watch.look()
    served.watch.look()
    during = served.scores()
    ArrowStore.build(folder, items(30.0), bundle.encoder)
    served.watch.look()

    assert before == during
    assert served.scores() == expected(bundle, items(30.0))
    assert served.number('recmoe_items_swaps_total{outcome="failed"}') == 2
    told = [record.getMessage() for record in caplog.records if record.name == "serving.stores"]
    assert [line.split(",")[0] for line in told] == [
        "the store of items cannot be looked at",
        "the store of items can be looked at again",
    ]


def test_fault_of_a_look_does_not_end_the_watch(
    serve: Serve, bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ArrowStore.build(tmp_path / "items", items(2.0), bundle.encoder)
    served = serve(items=str(tmp_path / "items"))

    with monkeypatch.context() as patch:
        patch.setattr(ArrowStore, "latest", lambda _: 1 / 0)
        served.watch.look()

    assert "the store of items could not be followed" in caplog.text
    assert served.number('recmoe_items_swaps_total{outcome="failed"}') == 1


def test_all_models_get_the_store_but_those_that_cannot_read_it(
    serve: Serve,
    bundle: ModelBundle,
    tmp_path: Path,
    write_model: WriteModel,
    shop_config: dict[str, Any],
    shop_log: pa.Table,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "items"
    ArrowStore.build(folder, items(2.0, weight=[1.5] * 40), bundle.encoder)
    served = serve(items=str(folder))
    features = {**shop_config["inputs"]["features"], "weight": {"kind": "numeric", "side": "item"}}
    config = {**shop_config, "inputs": {**shop_config["inputs"], "features": features}}
    log = shop_log.append_column("weight", shop_log["price"])
    heavy = Ranker.load(write_model(tmp_path / "heavy", config, log), items=ArrowStore.open(folder))
    served.models.use("shadow", heavy)
    served.models.use("champion", Ranker.load(bundle, version="2", items=ArrowStore.open(folder)))

    ArrowStore.build(folder, items(30.0, weight=["light"] * 40), bundle.encoder)
    served.watch.look()
    served.watch.look()

    champion, previous = served.models.get(), served.models.previous
    assert champion.items is not None
    assert previous is not None
    assert previous.items is not None
    assert champion.items.store is previous.items.store
    assert champion.items.store.identity == (folder / "store.json").read_bytes()
    assert (champion.info.version, previous.info.version) == ("2", None)
    assert served.models.shadow is heavy
    told = [record.getMessage() for record in caplog.records if record.name == "serving.stores"]
    assert len(told) == 1
    assert told[0].startswith("version None keeps the store of items before: column 'weight' of feature 'weight'")


def test_users_are_looked_up_and_counted_and_replaced(serve: Serve, bundle: ModelBundle, tmp_path: Path) -> None:
    folder = tmp_path / "users"
    ArrowStore.build(folder, USERS, bundle.encoder, "user")
    served = serve(users=str(folder))
    row = USERS.to_pylist()[0]

    before = served.scores()
    unknown = served.ask(user={"user_id": "nobody"}).document
    served.scores(user={"age": 20})
    ArrowStore.build(folder, USERS.set_column(2, "age", pa.array([18, 18])), bundle.encoder, "user")
    served.watch.look()

    assert before == expected(bundle, items(1.0, 0), row)
    assert served.scores() == expected(bundle, items(1.0, 0), {**row, "age": 18})
    assert {"feature": "user_id", "code": "not_in_store", "count": 1} in unknown["warnings"]
    assert served.number('recmoe_users_lookups_total{outcome="hit"}') == 2
    assert served.number('recmoe_users_lookups_total{outcome="miss"}') == 1
    assert served.number("recmoe_users ") == 2
    assert 0 < served.number("recmoe_users_age_seconds") < 600
    assert served.number('recmoe_users_swaps_total{outcome="loaded"}') == 1


def test_new_items_in_redis_are_taken_up(serve: Serve, bundle: ModelBundle, redis_url: str) -> None:
    write_store(redis_url, items(2.0), bundle.encoder, "item")
    served = serve(items=redis_url, items_known_bytes=0)

    before = served.scores(), served.scores()
    write_store(redis_url, items(30.0), bundle.encoder, "item")
    unseen = served.scores()
    served.watch.look()

    assert before == (unseen, unseen) == (expected(bundle, items(2.0)),) * 2
    assert served.scores() == expected(bundle, items(30.0))
    assert served.number('recmoe_items_lookups_total{outcome="hit"}') == 8
    assert served.number('recmoe_items_lookups_total{outcome="miss"}') == 4
    assert served.number("recmoe_items_cached_total") == 6
    assert served.number('recmoe_items_swaps_total{outcome="loaded"}') == 1


def test_products_of_new_items_in_redis_take_the_place_of_the_old_ones(
    serve: Serve, bundle: ModelBundle, redis_url: str
) -> None:
    write_store(redis_url, items(2.0), bundle.encoder, "item")
    served = serve(items=redis_url)

    before, num_before = served.scores(), served.number("recmoe_items_known")
    write_store(redis_url, items(30.0, 20), bundle.encoder, "item")
    served.watch.look()
    after = served.scores()

    assert before == pytest.approx(expected(bundle, items(2.0)), abs=1e-5)
    assert after == pytest.approx(expected(bundle, items(30.0)), abs=1e-5)
    assert (num_before, served.number("recmoe_items_known")) == (40, 20)
    assert served.number('recmoe_items_lookups_total{outcome="hit"}') == 4
    assert served.number('recmoe_items_lookups_total{outcome="miss"}') == 2
    assert served.number("recmoe_items_cached_total") == 4


def test_redis_that_is_lost_while_products_are_computed_is_looked_at_again(
    serve: Serve, bundle: ModelBundle, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(redis_url, items(2.0), bundle.encoder, "item")
    served = serve(items=redis_url)
    before = served.scores()
    write_store(redis_url, items(30.0), bundle.encoder, "item")
    run = RedisClient.run

    def lost(client: RedisClient, *commands: Any) -> list[Any]:
        if commands[0][0] == "GET" and ":order:" in str(commands[0][1]):
            raise StoreError("gone")
        return run(client, *commands)

    with monkeypatch.context() as patch:
        patch.setattr(RedisClient, "run", lost)
        served.watch.look()
    during = served.scores()
    served.watch.look()

    assert before == during
    assert served.number('recmoe_items_swaps_total{outcome="failed"}') == 1
    assert served.number('recmoe_items_swaps_total{outcome="loaded"}') == 1
    assert served.scores() == pytest.approx(expected(bundle, items(30.0)), abs=1e-5)


def test_redis_that_is_away_is_a_503_and_comes_back(
    serve: Serve, bundle: ModelBundle, make_redis: Callable[..., Any], ask: Any
) -> None:
    server = make_redis()
    write_store(server.url(), items(2.0), bundle.encoder, "item")
    write_store(server.url(), USERS, bundle.encoder, "user")
    served = serve(items=server.url(), users=server.url(), store_cache_bytes=0, store_timeout_ms=1000)
    before = served.scores()
    server.kill()

    start_s = time.perf_counter()
    refused = served.ask()
    kserve = ask(f"{served.url}/v2/models/shop/infer", {"inputs": [
        {"name": "item_id", "shape": [1], "datatype": "INT64", "data": [101]},
        {"name": "user_id", "shape": [1], "datatype": "BYTES", "data": ["u3"]},
    ]})  # fmt: skip
    took_s = time.perf_counter() - start_s
    served.watch.look()
    is_ready = ask(f"{served.url}/readyz").status
    server.start()
    time.sleep(1.1)

    assert (refused.status, refused.headers["Retry-After"], is_ready) == (503, "1", 200)
    assert "does not answer" in refused.document["detail"]
    assert kserve.status == 503
    assert took_s < 3
    assert served.scores() == before
    assert served.number('recmoe_users_lookups_total{outcome="error"}') == 2
    assert served.number('recmoe_refused_total{reason="store_away"}') == 2
    assert served.number('recmoe_items_swaps_total{outcome="failed"}') == 1


def test_items_may_count_as_unknown_while_redis_is_away(
    serve: Serve, bundle: ModelBundle, make_redis: Callable[..., Any]
) -> None:
    server = make_redis()
    write_store(server.url(), items(2.0), bundle.encoder, "item")
    served = serve(items=server.url(), store_cache_bytes=0, store_away="unknown", items_known_bytes=0)
    server.kill()

    answer = served.ask()

    assert answer.status == 200
    assert [item["score"] for item in answer.document["items"]] == expected(bundle, items(2.0, 0))
    assert {"feature": "item_id", "code": "store_away", "count": 3} in answer.document["warnings"]
    assert served.number('recmoe_items_lookups_total{outcome="error"}') == 3


def test_server_whose_store_is_not_there_does_not_start(serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: is no store of items; make one of a table by recmoe items build"):
        serve(items=str(tmp_path / "nowhere"))
    with pytest.raises(StoreError, match=r"redis://127\.0\.0\.1:1/0 does not answer: "):
        serve(users="redis://127.0.0.1:1/0")


@pytest.mark.slow
def test_no_request_meets_half_of_a_store(
    start_server: Callable[..., Any], bundle: ModelBundle, bundle_path: Path, redis_url: str, tmp_path: Path, ask: Any
) -> None:
    write_store(redis_url, items(0.0), bundle.encoder, "item")
    ArrowStore.build(tmp_path / "users", USERS, bundle.encoder, "user")
    given = ["--workers", "2", "--threads", "1", "--deadline-ms", "60000", "--queue", "1000", "--store-watch-s", "0.1"]
    server = start_server(
        bundle_path, *given, "--store-timeout-ms", "5000", "--items", redis_url, "--users", str(tmp_path / "users")
    )
    ages = (40, 18)
    users = [USERS.set_column(2, "age", pa.array([age, age])) for age in ages]
    rows = [{**USERS.to_pylist()[0], "age": age} for age in ages]
    possible = [expected(bundle, items(float(price)), row) for price in range(4) for row in rows]

    with Clients(server.url, [REQUEST]) as clients:
        for price in range(1, 4):
            seen = len(clients.answers)
            write_store(redis_url, items(float(price)), bundle.encoder, "item")
            ArrowStore.build(tmp_path / "users", users[price % 2], bundle.encoder, "user")
            while len(clients.answers) < seen + 20:
                time.sleep(0.05)
        end_s = time.monotonic() + 60
        last = expected(bundle, items(3.0), rows[1])
        while time.monotonic() < end_s:
            found = [[item["score"] for item in answer["items"]] for _, answer in clients.answers[-10:]]
            if all(scores == pytest.approx(last, abs=1e-5) for scores in found):
                break
            time.sleep(0.1)
    page = ask(f"{server.url}/metrics").text
    server.process.send_signal(signal.SIGTERM)

    assert (clients.faults, clients.lost) == ([], [])
    for _, answer in clients.answers:
        scores = [item["score"] for item in answer["items"]]
        assert any(scores == pytest.approx(one, abs=1e-5) for one in possible)
    assert [item["score"] for item in clients.answers[-1][1]["items"]] == pytest.approx(last, abs=1e-5)
    assert 'recmoe_items_lookups_total{outcome="miss"}' in page
    assert server.process.wait(timeout=120) == 0
