"""RedisStore: columns of items or users by id, in a Redis server that many machines share.

Every row is a key of its own. All keys of one build begin with the name of its generation, and one more key says which
generation is current: a reader sees a build whole or not at all. See ``redis_writer`` for how one is written.
"""

# C ids of a request

import base64
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from recmoe.errors import DataError, StoreError
from recmoe.features.arrow_ids import IdBlock
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.id_keys import UInt64s
from recmoe.json_document import first_problem
from recmoe.ranking.items.encoded import EncodedItems
from recmoe.ranking.items.redis_client import RedisAddress, RedisClient
from recmoe.ranking.items.row_bytes import RowBytes
from recmoe.ranking.items.row_cache import Row, RowCache
from recmoe.ranking.items.store import FoundRows, StoredSide
from recmoe.ranking.look_ups import LookUps

VERSION = 1


class RedisReading(BaseModel):
    """How rows are read from Redis."""

    model_config = ConfigDict(frozen=True)

    timeout_s: float = 1.0
    """For an answer."""
    cache_bytes: int = 0
    """Of rows that this process keeps."""
    cache_s: float = 60.0
    """How long it keeps them."""
    away: Literal["refuse", "unknown"] = "refuse"
    """What becomes of ids where Redis does not answer: StoreError, or they count as ids without a row."""


class Named(BaseModel):
    """A generation."""

    generation: str
    """Its name."""


class Generation(Named):
    """What the key of the current generation holds, as JSON."""

    version: int
    side: StoredSide
    column: str
    """The column of ids."""
    num_rows: int
    written_at: datetime
    columns: str
    """Arrow's schema of the rows, serialized, in base64."""
    sample: list[str]
    """Keys of some rows, by which a reader sees whether all is well."""
    order_rows: int = 0
    """Rows whose keys one key of the order holds; 0 in what an earlier version has written, which kept no order."""

    @property
    def schema(self) -> pa.Schema:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(self.columns)))


class RedisKeys:
    """Names of keys.

    Example: ``recmoe:item:current``, and the row of an id ``recmoe:item:6b1f…:00c0ffee00c0ffee``.

    Args:
        prefix: of all.
        side: whose rows they are of.
    """

    def __init__(self, prefix: str, side: StoredSide) -> None:
        self._start = f"{prefix}:{side}"
        self.current = f"{self._start}:current"
        self.unfinished = f"{self._start}:unfinished"
        """What a build that is under way has written."""
        self.lock = f"{self._start}:lock"

    def rows(self, generation: str) -> str:
        """How the keys of a generation begin; what follows is of ``names``."""
        return f"{self._start}:{generation}:"

    @staticmethod
    def order(chunk: int) -> str:
        """What follows for the keys of the first thousand rows or so, of the next ones …, as numbers of eight bytes."""
        return f"order:{chunk}"

    @staticmethod
    def names(keys_C: UInt64s) -> list[str]:
        """Keys of ids as text."""
        text = keys_C.astype(">u8").tobytes().hex()
        return [text[start : start + 16] for start in range(0, len(text), 16)]


class RedisStore:
    """One generation; see ``RowStore``.

    Args:
        client: of the server.
        identity: what the key of the current generation held.
        about: the same, read.
        reading: how rows are read.
    """

    def __init__(self, client: RedisClient, identity: bytes, about: Generation, reading: RedisReading) -> None:
        self.identity, self.where = identity, client.address.text
        self.side, self.column, self.columns = about.side, about.column, about.schema
        self.num_rows, self.written_at = about.num_rows, about.written_at
        self._client, self._about, self._reading = client, about, reading
        self._keys = RedisKeys(client.address.prefix, about.side)
        self._start = self._keys.rows(about.generation)
        self._rows = RowBytes(self.columns)
        self._cache = RowCache(max_bytes=reading.cache_bytes, keep_s=reading.cache_s)

    @classmethod
    def open(cls, address: str, side: StoredSide, reading: RedisReading | None = None) -> "RedisStore":
        """The current generation of a side.

        Raises:
            DataError: it is no address, or there is no store of this side.
            StackError: redis-py is not installed.
            StoreError: the server does not answer.
        """
        reading = reading or RedisReading()
        return cls.of(RedisClient(RedisAddress.parse(address), timeout_s=reading.timeout_s), side, reading)

    @classmethod
    def of(cls, client: RedisClient, side: StoredSide, reading: RedisReading) -> "RedisStore":
        """The same, of a server that is known."""
        identity = _current(client, side)
        try:
            about = Generation.model_validate_json(identity)
            if about.version != VERSION or about.side != side:
                raise ValueError(f"it has version {about.version} of side {about.side}")
            return cls(client, identity, about, reading)
        except (ValueError, pa.ArrowException) as error:
            reason = first_problem(error) if isinstance(error, ValidationError) else error
            raise DataError(
                f"{client.address.text}: its store of {side}s cannot be read: {reason}; "
                f"build it again with recmoe {side}s build"
            ) from error

    def look_up(self, ids: pa.Array) -> FoundRows:
        """The rows of some ids; StoreError where Redis does not answer, and ids without a row are not wanted then."""
        names_C = RedisKeys.names(IdBlock(ids, 1).keys_KB[0])
        try:
            return self._look_up(names_C)
        except StoreError as error:
            raise StoreError(str(error), side=self.side, num_ids=len(names_C)) from error

    def _look_up(self, names_C: Sequence[str]) -> FoundRows:
        known = self._cache.get(names_C)
        num_cached = sum(name in known for name in names_C)
        wanted = [name for name in dict.fromkeys(names_C) if name not in known]
        num_failed = 0
        if wanted:
            try:
                found = self._fetch(wanted)
            except StoreError:
                if self._reading.away == "refuse":
                    raise
                num_failed = len(names_C) - num_cached
            else:
                self._cache.put(found)
                known |= found
        rows = self._found(names_C, known)
        num_hits = int(np.count_nonzero(rows.places_C >= 0))
        num_misses = len(names_C) - num_hits - num_failed
        return FoundRows(rows.places_C, rows.rows, LookUps(num_hits, num_misses, num_failed, num_cached))

    def sample(self, num_rows: int) -> FoundRows:
        """Some rows; DataError where one is missing, StoreError where Redis does not answer."""
        return self._all(self._about.sample[:num_rows])

    def first_rows(self, num_rows: int) -> Iterator[pa.Table]:
        """The first rows, in the order in which they were written; see ``RowStore``."""
        size = self._about.order_rows
        for first in range(0, min(num_rows, self.num_rows), size) if size else ():
            (keys,) = self._client.run(["GET", self._start + RedisKeys.order(first // size)])
            names = RedisKeys.names(np.frombuffer(keys or b"", "<u8"))
            if len(names) != min(size, self.num_rows - first):
                raise self._lost(1, "parts of the order of")
            yield self._all(names[: num_rows - first]).rows

    def encoded(self, _: FeatureEncoder) -> EncodedItems | None:
        """None: rows are encoded when they have been found."""
        return None

    def latest(self) -> bytes:
        """What the key of the current generation holds now; StoreError, DataError where it cannot be read."""
        return _current(self._client, self.side)

    def reopened(self) -> "RedisStore":
        """The current generation; see ``of``."""
        return RedisStore.of(self._client, self.side, self._reading)

    def _all(self, names: Sequence[str]) -> FoundRows:
        """Rows that have to be there, in this order."""
        found = self._fetch(names)
        num_missing = sum(row is None for row in found.values())
        if num_missing:
            raise self._lost(num_missing, f"of {len(names)}")
        return self._found(names, found)

    def _lost(self, num: int, of_what: str) -> DataError:
        return DataError(
            f"{self.where}: {num} {of_what} {self.side}s that were looked up are not there any more; "
            f"give Redis memory for all (maxmemory), and build it again with recmoe {self.side}s build"
        )

    def _fetch(self, names: Sequence[str]) -> dict[str, Row]:
        rows, size = self._client.run(
            ["MGET", *(self._start + name for name in names)], ["STRLEN", self._start + self._about.sample[0]]
        )
        if size == 0 and not any(rows):
            raise StoreError(
                f"{self.where}: the {self.side}s that were read from are not there any more; build them again"
            )
        return dict(zip(names, rows, strict=True))

    def _found(self, names_C: Sequence[str], known: dict[str, Row]) -> FoundRows:
        """The rows of some ids, each once."""
        rows = {name: row for name in names_C if (row := known.get(name)) is not None}
        places = {name: place for place, name in enumerate(rows)}
        try:
            table = self._rows.read(list(rows.values()))
        except (ValueError, pa.ArrowException) as error:
            raise StoreError(
                f"{self.where}: a row of generation {self._about.generation} is damaged: {error}; "
                f"build it again with recmoe {self.side}s build"
            ) from error
        return FoundRows(np.array([places.get(name, -1) for name in names_C], np.int64), table)


def _current(client: RedisClient, side: StoredSide) -> bytes:
    (found,) = client.run(["GET", RedisKeys(client.address.prefix, side).current])
    if found is None:
        raise DataError(
            f"{client.address.text}: holds no store of {side}s (prefix {client.address.prefix!r}); make one of a table "
            f"by recmoe {side}s build TABLE --model MODEL --to {client.address.text}"
        )
    content: bytes = found
    return content
