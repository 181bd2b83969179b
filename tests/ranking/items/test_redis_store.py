"""A store in Redis is whole or what was there before, and what does not answer is told within its time."""

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recmoe.errors import DataError, SchemaError, StackError, StoreError
from recmoe.export.bundle import ModelBundle
from recmoe.features.encoder import FeatureEncoder
from recmoe.ranking import Ranker, RankRequest
from recmoe.ranking.items import RowStore, open_store
from recmoe.ranking.items.redis_client import RedisAddress, RedisClient
from recmoe.ranking.items.redis_store import RedisReading
from recmoe.ranking.items.row_bytes import RowBytes
from recmoe.ranking.look_ups import LookUps
from recmoe.runs.stores import write_store
from tests.certificate import write_certificate

ORDER = 1
"""Keys of a build that hold the order of its rows."""
IDS = [101, 7, 100, 999, 101]
REQUEST = RankRequest.parse({"user": {"user_id": "u3"}, "candidates": {"item_id": [101, 102, 7]}})


def all_keys(client: RedisClient) -> set[bytes]:
    return {key for keys in client.scan(client.address.prefix) for key in keys}


def with_prices(items: pa.Table, price: float) -> pa.Table:
    place = items.column_names.index("price")
    return items.set_column(place, "price", pa.array([price] * items.num_rows))


def prices(store: RowStore, ids: list[int]) -> list[float | None]:
    found = store.look_up(pa.array(ids))
    known = found.rows.column("price").to_pylist()
    return [known[place] if place >= 0 else None for place in found.places_C]


def test_rows_are_found_and_counted(redis_url: str, put: Callable[..., RowStore], shop_items: pa.Table) -> None:
    put()
    store = open_store(redis_url, "item", RedisReading(cache_bytes=10_000))

    found, again = store.look_up(pa.array(IDS)), store.look_up(pa.array(["101", "102"]))

    assert found.places_C.tolist() == [0, -1, 1, 2, 0]
    assert found.rows.column("item_id").to_pylist() == [101, 100, 999]
    assert found.rows.column_names == ["item_id", "words", "price"]
    assert found.look_ups == LookUps(num_hits=4, num_misses=1)
    assert again.look_ups == LookUps(num_hits=2, num_cached=1)
    assert store.look_up(pa.array([7])).look_ups == LookUps(num_misses=1, num_cached=1)
    assert (store.num_rows, store.column, store.side) == (31, "item_id", "item")
    assert shop_items.column_names == ["item_id", "title", "words", "price"]


def test_items_are_replaced_at_once_and_the_old_ones_go(
    put: Callable[..., RowStore], client: RedisClient, shop_items: pa.Table
) -> None:
    first = put(with_prices(shop_items, 1.0))

    second = put(with_prices(shop_items.slice(0, 5), 2.0), keep_old_s=100)

    # Who has not seen yet that there are others still finds the first ones.
    assert prices(first, [101, 100]) == [1.0, 1.0]
    assert prices(second, [101, 100]) == [2.0, None]
    assert first.latest() == second.identity
    assert prices(first.reopened(), [101]) == [2.0]
    times = {key: client.run(["TTL", key])[0] for key in all_keys(client)}
    assert len(times) == 31 + 5 + 2 * ORDER + 1
    assert sum(0 < time_s <= 100 for time_s in times.values()) == 31 + ORDER


def test_who_reads_while_items_are_replaced_sees_no_mixture(
    redis_url: str, put: Callable[..., RowStore], shop_items: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recmoe.ranking.items.redis_writer._CHUNK_ROWS", 2)
    put(with_prices(shop_items, 0.0))
    ids = shop_items["item_id"].to_pylist()
    seen: list[set[float | None]] = []
    is_done = threading.Event()

    def read() -> None:
        store = open_store(redis_url, "item")
        while not is_done.is_set():
            if store.latest() != store.identity:
                store = store.reopened()
            seen.append(set(prices(store, ids)))

    reader = threading.Thread(target=read)
    reader.start()
    for price in range(1, 6):
        put(with_prices(shop_items, float(price)), keep_old_s=1)
    is_done.set()
    reader.join()

    assert {len(found) for found in seen} == {1}
    assert len({price for found in seen for price in found}) > 1


def test_build_that_was_broken_off_goes_on_where_it_was(
    make_redis: Callable[..., Any], shop_items: pa.Table, shop_encoder: FeatureEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recmoe.ranking.items.redis_writer._CHUNK_ROWS", 10)
    server = make_redis()
    write, written = RowBytes.write, []

    def broken_off(codec: RowBytes, rows: pa.Table) -> list[bytes]:
        written.append(rows.num_rows)
        if len(written) == 3:
            server.kill()
        return write(codec, rows)

    monkeypatch.setattr(RowBytes, "write", broken_off)
    with pytest.raises(StoreError, match="does not answer"):
        write_store(server.url(), shop_items, shop_encoder, "item")
    server.start()
    client = RedisClient(RedisAddress.parse(server.url()), timeout_s=5)
    with pytest.raises(DataError, match="holds no store of items"):
        open_store(server.url(), "item")
    with pytest.raises(StoreError, match="another process is writing its items, or was killed a moment ago; try again"):
        write_store(server.url(), shop_items, shop_encoder, "item")
    # A minute later.
    client.run(["DEL", "recmoe:item:lock"])
    before = written[:]

    store = write_store(server.url(), shop_items, shop_encoder, "item")

    assert before == [10, 10, 10]
    # Those that were not written yet, and the sample that is read back.
    assert written[len(before) :] == [10, 1, 31]
    assert store.look_up(shop_items["item_id"].combine_chunks()).look_ups == LookUps(num_hits=31)
    assert len(all_keys(client)) == 31 + 4 * ORDER + 1


def test_what_is_left_of_another_build_is_removed(
    put: Callable[..., RowStore], client: RedisClient, shop_items: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    put()
    run = RedisClient.run

    def without_a_switch(client: RedisClient, *commands: Any) -> list[Any]:
        if commands[0][0] == "SET" and str(commands[0][1]).endswith("current"):
            raise StoreError("gone")
        return run(client, *commands)

    with monkeypatch.context() as patch:
        patch.setattr(RedisClient, "run", without_a_switch)
        with pytest.raises(StoreError, match="gone"):
            put(with_prices(shop_items, 1.0))
    assert len(all_keys(client)) == 31 + 31 + 2 * ORDER + 2

    put(with_prices(shop_items, 2.0), keep_old_s=100)

    keys = all_keys(client)
    assert len(keys) == 31 + 31 + 2 * ORDER + 1
    assert sum(client.run(["TTL", key])[0] > 0 for key in keys) == 31 + ORDER


def test_build_that_was_broken_off_after_the_switch_lets_the_old_items_go(
    put: Callable[..., RowStore], client: RedisClient, shop_items: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    put()
    with monkeypatch.context() as patch:
        patch.setattr(RedisClient, "scan", lambda *_: (_ for _ in ()).throw(StoreError("gone")))
        with pytest.raises(StoreError, match="gone"):
            put(with_prices(shop_items, 1.0))

    put(with_prices(shop_items, 1.0), keep_old_s=100)

    keys = all_keys(client)
    assert len(keys) == 31 + 31 + 2 * ORDER + 1
    assert sum(client.run(["TTL", key])[0] > 0 for key in keys) == 31 + ORDER


def test_another_build_that_took_over_ends_this_one(
    put: Callable[..., RowStore], client: RedisClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = RowBytes.write

    def overtaken(codec: RowBytes, rows: pa.Table) -> list[bytes]:
        client.run(["SET", f"{client.address.prefix}:item:lock", "another"])
        return write(codec, rows)

    monkeypatch.setattr(RowBytes, "write", overtaken)

    with pytest.raises(StoreError, match="another process has begun to write its items"):
        put()
    assert client.run(["GET", f"{client.address.prefix}:item:lock"]) == [b"another"]


def test_rows_that_redis_has_not_kept_are_told(put: Callable[..., RowStore], monkeypatch: pytest.MonkeyPatch) -> None:
    run = RedisClient.run

    def without_rows(client: RedisClient, *commands: Any) -> list[Any]:
        found = run(client, *commands)
        return [[None] * len(found[0])] if commands[0][0] == "MGET" else found

    monkeypatch.setattr(RedisClient, "run", without_rows)

    with pytest.raises(DataError, match="Redis has not kept what was written; give it memory for all rows"):
        put()


def test_store_that_does_not_fit_the_model_is_refused(
    put: Callable[..., RowStore],
    client: RedisClient,
    bundle: ModelBundle,
    redis_url: str,
) -> None:
    put()
    current = f"{client.address.prefix}:item:current"
    (about,) = client.run(["GET", current])

    def refused() -> str:
        with pytest.raises(DataError) as caught:
            Ranker.load(bundle, items=open_store(redis_url, "item"))
        return str(caught.value)

    client.run(["SET", current, about.replace(b'"column":"item_id"', b'"column":"title"')])
    assert "its items are named by column 'title', the model's by 'item_id'; build it again for this model" in refused()
    client.run(["SET", current, about.replace(b'"version":1', b'"version":9')])
    assert "its store of items cannot be read: it has version 9 of side item; build it again with" in refused()
    client.run(["SET", current, b"{}"])
    assert "cannot be read: generation: Field required" in refused()
    client.run(["SET", current, about])
    rows = [key for key in all_keys(client) if not key.endswith(b"current") and b":order:" not in key]
    client.run(["DEL", *rows[:4]])
    assert (
        "4 of 31 items that were looked up are not there any more; give Redis memory for all (maxmemory)" in refused()
    )
    client.run(["DEL", *rows])
    with pytest.raises(StoreError, match="are not there any more; build them again"):
        Ranker.load(bundle, items=open_store(redis_url, "item"))


def test_column_of_another_type_is_refused(
    redis_url: str, bundle: ModelBundle, shop_items: pa.Table, shop_encoder: FeatureEncoder, shop_log: pa.Table
) -> None:
    place = shop_log.column_names.index("item_id")
    other_log = shop_log.set_column(place, "item_id", shop_log["item_id"].cast(pa.string()))
    other = FeatureEncoder.fit(shop_encoder.schema, [other_log])
    write_store(redis_url, shop_items, other, "item")

    with pytest.raises(DataError, match="column 'item_id' is of type string, the model reads int64; build it again"):
        Ranker.load(bundle, items=open_store(redis_url, "item"))


def test_damaged_row_is_told_when_it_is_read(put: Callable[..., RowStore], client: RedisClient) -> None:
    store = put()
    for key in all_keys(client):
        if not key.endswith(b"current"):
            client.run(["APPEND", key, b"1"])

    with pytest.raises(StoreError, match="is damaged: a row goes on behind its last column; build it again") as caught:
        store.look_up(pa.array([101, 102]))

    assert (caught.value.side, caught.value.num_ids) == ("item", 2)


def test_redis_that_was_killed_is_told_in_time_and_found_again(
    make_redis: Callable[..., Any], bundle: ModelBundle, shop_items: pa.Table
) -> None:
    server = make_redis()
    write_store(server.url(), shop_items, bundle.encoder, "item")
    refusing, knowing, ranking = (
        Ranker.load(bundle, items=open_store(server.url(), "item", reading))
        for reading in (
            RedisReading(timeout_s=0.5),
            RedisReading(timeout_s=0.5, cache_bytes=10_000),
            RedisReading(timeout_s=0.5, away="unknown"),
        )
    )
    before = [ranker.rank(REQUEST) for ranker in (refusing, knowing, ranking)]
    server.kill()

    start_s = time.perf_counter()
    for _ in range(5):
        with pytest.raises(StoreError, match=r"redis://127\.0\.0\.1:\d+.* does not answer: .*refused"):
            refusing.rank(REQUEST)
    from_memory, unknown = knowing.rank(REQUEST), ranking.rank(REQUEST)
    took_s = time.perf_counter() - start_s
    server.start()
    # What was tried in vain is left alone for a second.
    time.sleep(1.1)
    after = [ranker.rank(REQUEST) for ranker in (refusing, knowing, ranking)]

    assert took_s < 2
    assert [[item.score for item in one.items] for one in before] == [
        [item.score for item in one.items] for one in after
    ]
    assert from_memory.items == before[1].items
    plain = Ranker.load(bundle).rank(REQUEST)
    assert unknown.items == plain.items
    away = unknown.warnings[0]
    assert (away.feature, away.code, away.count) == ("item_id", "store_away", 3)


def test_redis_that_hangs_is_told_in_time(put: Callable[..., RowStore], client: RedisClient, redis_url: str) -> None:
    put()
    store = open_store(redis_url, "item", RedisReading(timeout_s=0.1))
    client.run(["CLIENT", "PAUSE", 400])

    start_s = time.perf_counter()
    with pytest.raises(StoreError, match="Timeout"):
        store.look_up(pa.array([101]))
    took_s = time.perf_counter() - start_s
    time.sleep(0.4)

    assert took_s < 0.35
    assert store.look_up(pa.array([101])).look_ups == LookUps(num_hits=1)


def test_password_comes_from_the_environment_and_is_not_told(
    make_redis: Callable[..., Any], shop_items: pa.Table, shop_encoder: FeatureEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_redis("--requirepass", "secret")

    with pytest.raises(StoreError, match=r"Authentication required\.$"):
        write_store(server.url(), shop_items, shop_encoder, "item")
    monkeypatch.setenv("RECMOE_REDIS_PASSWORD", "wrong")
    with pytest.raises(StoreError, match="does not answer: ") as caught:
        write_store(server.url(), shop_items, shop_encoder, "item")
    monkeypatch.setenv("RECMOE_REDIS_PASSWORD", "secret")
    store = write_store(server.url(), shop_items, shop_encoder, "item")

    assert "wrong" not in str(caught.value).lower().replace("wrongpass", "")
    assert store.num_rows == 31
    with pytest.raises(DataError, match="with a password in it; give it by the environment variable RECMOE_REDIS_PASS"):
        open_store(server.url().replace("//", "//me:secret@"), "item")


def test_rows_may_come_over_tls(
    make_redis: Callable[..., Any],
    tmp_path: Path,
    shop_items: pa.Table,
    shop_encoder: FeatureEncoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate, key = map(str, write_certificate(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    given = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate]
    make_redis("--tls-port", str(port), *given, "--tls-auth-clients", "no")
    url = f"rediss://localhost:{port}/0"

    with pytest.raises(StoreError, match="certificate verify failed"):
        write_store(url, shop_items, shop_encoder, "item")
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    store = write_store(url, shop_items, shop_encoder, "item")

    assert store.look_up(pa.array(IDS)).look_ups == LookUps(num_hits=4, num_misses=1)


def test_address_is_read() -> None:
    whole = RedisAddress.parse("rediss://me@cache.example:7000/3?prefix=shop")

    assert (whole.host, whole.port, whole.db, whole.username) == ("cache.example", 7000, 3, "me")
    assert (whole.is_tls, whole.prefix) == (True, "shop")
    short = RedisAddress.parse("redis://cache")
    assert (short.host, short.port, short.db, short.is_tls, short.prefix) == ("cache", 6379, 0, False, "recmoe")


@pytest.mark.parametrize(
    "text", ["redis://", "redis://cache:x/0", "redis://cache/shop", "redis://cache/0?timeout=3", "redis://cache?prefix"]
)
def test_address_that_is_none_is_told(text: str) -> None:
    with pytest.raises(DataError, match="expected redis://HOST:PORT/DB or rediss://HOST:PORT/DB, with"):
        RedisAddress.parse(text)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "redis", None)

    with pytest.raises(StackError, match=r"a store in Redis needs redis-py .*; pip install 'recmoe\[redis\]'"):
        open_store("redis://cache", "item")


def test_table_that_is_none_of_items_is_not_written(
    put: Callable[..., RowStore], client: RedisClient, shop_items: pa.Table
) -> None:
    with pytest.raises(SchemaError, match="column 'item_id' is missing"):
        put(shop_items.drop_columns(["item_id"]))

    assert all_keys(client) == set()


def test_keys_of_another_prefix_are_left_alone(
    redis_url: str, put: Callable[..., RowStore], shop_items: pa.Table, shop_encoder: FeatureEncoder
) -> None:
    other = write_store(f"{redis_url}*", with_prices(shop_items, 1.0), shop_encoder, "item")

    put(with_prices(shop_items, 2.0))
    put(with_prices(shop_items, 3.0), keep_old_s=0)

    assert prices(other, [101]) == [1.0]


def test_folder_of_files_is_no_address(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no store of users; make one of a table by recmoe users build TABLE"):
        open_store(str(tmp_path), "user")
