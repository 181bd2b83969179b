"""The shop's items as a table, and stores of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recmoe.features.encoder import FeatureEncoder
from recmoe.ranking.items import ArrowStore, RowStore
from recmoe.ranking.items.redis_client import RedisAddress, RedisClient
from recmoe.runs.stores import write_store


@pytest.fixture(scope="session")
def shop_items() -> pa.Table:
    """Items 100 to 129 of the shop, the odd ones first; an item without words, one without a price, one not seen."""
    ids = [*range(101, 130, 2), *range(100, 130, 2), 999]
    return pa.table(
        {
            "item_id": pa.array(ids),
            "title": pa.array([f"item {number}" for number in ids]),
            "words": pa.array(
                [None if number == 105 else ["red", "felt", "silk"][: number % 4] for number in ids],
                pa.list_(pa.string()),
            ),
            "price": pa.array([None if number == 106 else number / 7 for number in ids]),
        }
    )


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory, shop_items: pa.Table, shop_encoder: FeatureEncoder) -> Path:
    """A store that no test changes."""
    path = tmp_path_factory.mktemp("stores") / "items"
    ArrowStore.build(path, shop_items, shop_encoder)
    return path


@pytest.fixture
def put(redis_url: str, shop_items: pa.Table, shop_encoder: FeatureEncoder) -> Callable[..., RowStore]:
    """Writes items: ``put(items, keep_old_s=…)``; those of the shop by default."""

    def write(items: pa.Table = shop_items, **options: Any) -> RowStore:
        return write_store(redis_url, items, shop_encoder, "item", **options)

    return write


@pytest.fixture
def client(redis_url: str) -> RedisClient:
    return RedisClient(RedisAddress.parse(redis_url), timeout_s=5)
