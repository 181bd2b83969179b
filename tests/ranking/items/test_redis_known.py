"""Of the first items in Redis a server keeps what the model makes of them, and need not ask for them again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recmoe.errors import DataError, StoreError
from recmoe.export.bundle import ModelBundle
from recmoe.features.arrow_ids import IdBlock
from recmoe.ranking import Ranker, RankRequest
from recmoe.ranking.items import RowStore, open_store
from recmoe.ranking.items.redis_client import RedisClient
from recmoe.ranking.items.redis_store import RedisKeys
from recmoe.ranking.look_ups import LookUps
from recmoe.runs.stores import write_store

KNOWN_BYTES = 2**20
REQUEST = RankRequest.parse({"user": {"user_id": "u3"}, "candidates": {"item_id": [101, 102, 7]}})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each command asks Redis for, from now on."""
    numbers: list[int] = []
    run = RedisClient.run

    def counted(client: RedisClient, *commands: Any) -> list[Any]:
        numbers.extend(len(command) - 1 for command in commands if command[0] == "MGET")
        return run(client, *commands)

    monkeypatch.setattr(RedisClient, "run", counted)
    return numbers


def test_first_rows_come_in_the_order_of_the_table_and_not_all_at_once(
    put: Callable[..., RowStore], shop_items: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recmoe.ranking.items.redis_writer._CHUNK_ROWS", 10)
    store = put()
    monkeypatch.undo()

    some, all_ = list(store.first_rows(12)), list(store.first_rows(1000))

    assert [rows.num_rows for rows in some] == [10, 2]
    assert [rows.num_rows for rows in all_] == [10, 10, 10, 1]
    assert pa.concat_tables(all_)["item_id"].to_pylist() == shop_items["item_id"].to_pylist()


def test_redis_is_not_asked_for_items_whose_products_are_kept(
    put: Callable[..., RowStore], bundle: ModelBundle, store_path: Path, asked: list[int]
) -> None:
    ranker = Ranker.load(bundle, items=put(), items_known_bytes=KNOWN_BYTES)
    of_files = Ranker.load(bundle, items=open_store(str(store_path), "item"), items_known_bytes=KNOWN_BYTES)
    asked.clear()

    found = {}
    for name, candidates in {
        "known": {"item_id": [102, 101, 106, 999]},
        "one not there": {"item_id": [102, 7]},
        "one with a price": [{"item_id": 102}, {"item_id": 101, "price": 5.0}],
    }.items():
        request = RankRequest.parse({"user": {"user_id": "u3"}, "candidates": candidates, "explain": True})
        answer, expected = ranker.rank(request), of_files.rank(request)
        assert answer.items == expected.items
        assert answer.warnings == expected.warnings
        found[name] = asked[:]
        asked.clear()

    assert found == {"known": [], "one not there": [1], "one with a price": [1]}
    assert ranker.decode(request).look_ups["items"] == LookUps(num_hits=2, num_cached=1)


def test_items_whose_products_are_kept_are_ranked_while_redis_is_away(
    make_redis: Callable[..., Any], bundle: ModelBundle, shop_items: pa.Table
) -> None:
    server = make_redis()
    store = write_store(server.url(), shop_items, bundle.encoder, "item")
    ranker = Ranker.load(bundle, items=store, items_known_bytes=KNOWN_BYTES)
    request = RankRequest.parse({"user": {"user_id": "u3"}, "candidates": {"item_id": [101, 102]}})
    before = ranker.rank(request)
    server.kill()

    assert ranker.rank(request).items == before.items
    with pytest.raises(StoreError, match="does not answer"):
        ranker.rank(REQUEST)


def test_products_are_not_kept_of_a_store_without_an_order(
    put: Callable[..., RowStore], bundle: ModelBundle, client: RedisClient, caplog: pytest.LogCaptureFixture
) -> None:
    store = put()
    current = f"{client.address.prefix}:item:current"
    client.run(["SET", current, store.identity.replace(b',"order_rows":1000', b"")])

    ranker = Ranker.load(bundle, items=store.reopened(), items_known_bytes=KNOWN_BYTES)

    assert ranker.items is not None
    assert ranker.items.num_known == 0
    assert "kept: the store was written by an earlier version, which kept no order of items; build it" in caplog.text


def test_lost_order_and_lost_first_rows_are_told(
    put: Callable[..., RowStore], bundle: ModelBundle, client: RedisClient
) -> None:
    store = put()
    (order,) = [
        key for key in {key for keys in client.scan(client.address.prefix) for key in keys} if b":order:" in key
    ]
    row = order.replace(b"order:0", RedisKeys.names(IdBlock(pa.array([103]), 1).keys_KB[0])[0].encode())
    (before,) = client.run(["GET", row])

    client.run(["DEL", row])
    with pytest.raises(DataError, match="1 of 31 items that were looked up are not there any more; give Redis memory"):
        list(store.first_rows(31))
    client.run(["SET", row, before], ["DEL", order])
    with pytest.raises(DataError, match="1 parts of the order of items that were looked up are not there any more"):
        Ranker.load(bundle, items=store, items_known_bytes=KNOWN_BYTES)


def test_build_that_an_earlier_version_broke_off_begins_anew(put: Callable[..., RowStore], client: RedisClient) -> None:
    generation = str(put().identity).partition('"generation":"')[2].partition('"')[0]
    keys = RedisKeys(client.address.prefix, "item")
    client.run(["DEL", keys.current, keys.rows(generation) + RedisKeys.order(0)])
    client.run(["SET", keys.unfinished, f'{{"generation": "{generation}", "num_written": 31, "replaces": null}}'])

    store = put()

    assert [rows.num_rows for rows in store.first_rows(100)] == [31]
