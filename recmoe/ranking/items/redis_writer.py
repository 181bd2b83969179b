"""write_rows(): a table of items or users to Redis, so that readers see all of it or what was there before."""

# N rows

import base64
import hashlib
import uuid
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from recmoe.errors import DataError, StoreError
from recmoe.features.id_keys import UInt64s
from recmoe.ranking.items.redis_client import RedisAddress, RedisClient
from recmoe.ranking.items.redis_store import VERSION, Generation, Named, RedisKeys, RedisReading, RedisStore
from recmoe.ranking.items.row_bytes import RowBytes
from recmoe.ranking.items.store import StoredSide

_CHUNK_ROWS = 1000
_TIMEOUT_S = 30.0
_LOCK_S = 60
"""Seconds after which a build that was killed does not hold up the next one."""
_SAMPLED_ROWS = 64
KEEP_OLD_S = 600
"""Seconds that a generation stays after another one has become current; servers look for a new one more often."""


class _Unfinished(Named):
    """A build that is under way or was broken off, as JSON."""

    num_written: int
    """Rows, from the first on."""
    replaces: str | None
    """The generation that was current."""
    order_rows: int = 0
    """See ``Generation``."""


def write_rows(
    address: str, side: StoredSide, rows: pa.Table, keys_N: UInt64s, column: str, *, keep_old_s: int = KEEP_OLD_S
) -> RedisStore:
    """Write a generation and make it the current one; the one before goes after ``keep_old_s`` seconds.

    A build that was broken off goes on where it was if its table is the same; what is left of another one is removed.

    Args:
        address: of the server.
        rows: as ``checked_rows`` gives them; all columns are written.
        keys_N: of the ids.
        column: of the ids.

    Raises:
        StoreError: the server does not answer, has no room, or another process is writing.
        StackError: redis-py is not installed.
        DataError: it is no address, or Redis has not kept what was written.
    """
    client = RedisClient(RedisAddress.parse(address), timeout_s=_TIMEOUT_S)
    keys = RedisKeys(client.address.prefix, side)
    token = uuid.uuid4().hex
    (is_ours,) = client.run(["SET", keys.lock, token, "NX", "EX", _LOCK_S])
    if not is_ours:
        raise StoreError(
            f"{address}: another process is writing its {side}s, or was killed a moment ago; "
            f"try again when it is done, or in {_LOCK_S} s"
        )
    try:
        return _Writer(client, keys, side, token, keep_old_s).write(rows, keys_N, column)
    finally:
        if client.run(["GET", keys.lock]) == [token.encode()]:
            client.run(["DEL", keys.lock])


class _Writer:
    """Holds the lock; see ``write_rows``."""

    def __init__(self, client: RedisClient, keys: RedisKeys, side: StoredSide, token: str, keep_old_s: int) -> None:
        self._client, self._keys, self._side, self._token = client, keys, side, token
        self._keep_old_s = keep_old_s

    def write(self, rows: pa.Table, keys_N: UInt64s, column: str) -> RedisStore:
        sampled = np.unique(np.linspace(0, len(keys_N) - 1, min(len(keys_N), _SAMPLED_ROWS)).astype(np.int64))
        about = Generation(
            version=VERSION,
            generation=_digest(rows, column),
            side=self._side,
            column=column,
            num_rows=rows.num_rows,
            written_at=datetime.now(UTC),
            columns=base64.b64encode(rows.schema.remove_metadata().serialize()).decode(),
            sample=RedisKeys.names(keys_N[sampled]),
            order_rows=_CHUNK_ROWS,
        )
        unfinished = self._begun(about.generation)
        self._write_rows(rows, keys_N, unfinished)
        start = self._keys.rows(about.generation)
        (found,) = self._client.run(["MGET", *(start + name for name in about.sample)])
        if found != RowBytes(rows.schema).write(rows.take(pa.array(sampled))):
            raise DataError(
                f"{self._client.address.text}: Redis has not kept what was written; give it memory for all rows "
                "(maxmemory), and build again"
            )
        self._client.run(["SET", self._keys.current, about.model_dump_json()])
        self._let_expire(unfinished)
        return RedisStore.of(self._client, self._side, RedisReading())

    def _begun(self, generation: str) -> _Unfinished:
        """Where this build begins: at the start, or where it was broken off."""
        current, found = self._client.run(["GET", self._keys.current], ["GET", self._keys.unfinished])
        replaces = None if current is None else Named.model_validate_json(current).generation
        if found is not None:
            before = _Unfinished.model_validate_json(found)
            if before.generation == replaces:
                # It became current, and was broken off before the one that it replaces was told to go.
                self._let_expire(before)
            elif (before.generation, before.order_rows) == (generation, _CHUNK_ROWS):
                return before
            else:
                for names in self._client.scan(self._keys.rows(before.generation)):
                    self._client.run(["UNLINK", *names])
        return _Unfinished(generation=generation, num_written=0, replaces=replaces, order_rows=_CHUNK_ROWS)

    def _write_rows(self, rows: pa.Table, keys_N: UInt64s, unfinished: _Unfinished) -> None:
        start, codec = self._keys.rows(unfinished.generation), RowBytes(rows.schema)
        for first in range(unfinished.num_written, rows.num_rows, _CHUNK_ROWS):
            chunk = rows.slice(first, _CHUNK_ROWS)
            keys_B = keys_N[first : first + _CHUNK_ROWS]
            names = RedisKeys.names(keys_B)
            pairs = [part for name, row in zip(names, codec.write(chunk), strict=True) for part in (start + name, row)]
            done = unfinished.model_copy(update={"num_written": first + chunk.num_rows})
            holder, *_ = self._client.run(
                ["GET", self._keys.lock],
                ["EXPIRE", self._keys.lock, _LOCK_S],
                ["MSET", *pairs, start + RedisKeys.order(first // _CHUNK_ROWS), keys_B.astype("<u8").tobytes()],
                ["SET", self._keys.unfinished, done.model_dump_json()],
            )
            if holder != self._token.encode():
                raise StoreError(f"{self._client.address.text}: another process has begun to write its {self._side}s")

    def _let_expire(self, build: _Unfinished) -> None:
        """Let Redis remove what a build has replaced, after a while."""
        if build.replaces not in (None, build.generation):
            for names in self._client.scan(self._keys.rows(build.replaces)):
                self._client.run(*(["EXPIRE", name, self._keep_old_s] for name in names))
        self._client.run(["DEL", self._keys.unfinished])


def _digest(rows: pa.Table, column: str) -> str:
    """Names a generation by what it holds."""
    digest = hashlib.sha256(column.encode())
    digest.update(rows.schema.remove_metadata().serialize())
    for chunk in rows.to_batches(max_chunksize=_CHUNK_ROWS):
        digest.update(chunk.serialize())
    return digest.hexdigest()[:16]
