"""open_store(): the store that an address names: a folder, or a Redis server."""

from pathlib import Path

from recmoe.ranking.items.arrow_store import ArrowStore
from recmoe.ranking.items.redis_client import is_redis
from recmoe.ranking.items.redis_store import RedisReading, RedisStore
from recmoe.ranking.items.store import RowStore, StoredSide


def open_store(address: str, side: StoredSide, reading: RedisReading | None = None) -> RowStore:
    """A store of a side.

    Args:
        address: folder, or ``redis://HOST:PORT/DB``.
        reading: how rows are read from Redis.

    Raises:
        DataError: there is none, or it is damaged.
        StackError: redis-py is not installed.
        StoreError: it does not answer, or was replaced meanwhile.
    """
    if is_redis(address):
        return RedisStore.open(address, side, reading)
    return ArrowStore.open(Path(address), side)
