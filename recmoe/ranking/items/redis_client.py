"""RedisClient: commands for a Redis server, in time; the only module that knows redis-py."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from recmoe.errors import DataError, StackError, StoreError

SCHEMES = ("redis://", "rediss://")
PASSWORD = "RECMOE_REDIS_PASSWORD"
"""Environment variable: addresses end up in logs and lists of processes."""
_PORT = 6379
_PATIENCE = 3
"""Commands that fail one after the other, before the next ones fail for a while without being sent."""
_PAUSE_S = 1.0
_SCANNED = 10_000

Command = Sequence[object]
"""Its name and what follows: texts, bytes and numbers."""


@dataclass(frozen=True)
class RedisAddress:
    """``redis://USER@HOST:PORT/DB?prefix=NAME``, or ``rediss://`` for TLS; all but the host may be left out."""

    text: str
    """As it was given."""
    host: str
    port: int
    db: int
    username: str | None
    is_tls: bool
    prefix: str
    """How all keys begin: several models may share a database."""

    @classmethod
    def parse(cls, text: str) -> "RedisAddress":
        """DataError where it is no address, or holds a password."""
        usage = "expected redis://HOST:PORT/DB or rediss://HOST:PORT/DB, with ?prefix=NAME for several in one database"
        try:
            url, port = urlsplit(text), urlsplit(text).port
            query = parse_qs(url.query, strict_parsing=bool(url.query))
            db = int(url.path.strip("/") or 0)
        except ValueError as error:
            raise DataError(f"a Redis address that cannot be read: {error}; {usage}") from error
        if url.password is not None:
            # Not shown: what is shown is logged.
            raise DataError(f"a Redis address with a password in it; give it by the environment variable {PASSWORD}")
        prefix = query.pop("prefix", ["recmoe"])[-1]
        if not url.hostname or f"{url.scheme}://" not in SCHEMES or query or db < 0:
            raise DataError(f"{text}: {usage}")
        return cls(text, url.hostname, port or _PORT, db, url.username, url.scheme == "rediss", prefix)


def is_redis(address: str) -> bool:
    """Whether an address of a store names a Redis server."""
    return address.startswith(SCHEMES)


class RedisClient:
    """Threads may share it. A connection that was lost is made anew with the next command.

    Args:
        address: of the server.
        timeout_s: for connecting, and for each piece of an answer.

    Raises:
        StackError: redis-py is not installed.
    """

    def __init__(self, address: RedisAddress, *, timeout_s: float) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise StackError(f"a store in Redis needs redis-py ({error}); pip install 'recmoe[redis]'") from error
        self.address = address
        self._redis: redis.Redis = redis.Redis(
            host=address.host,
            port=address.port,
            db=address.db,
            username=address.username,
            password=os.environ.get(PASSWORD),
            ssl=address.is_tls,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # Repeating takes time that a request may not have.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        self._lost: type[Exception] = redis.ConnectionError
        self._failed: type[Exception] = redis.RedisError
        self._num_failures, self._silent_until_s, self._last = 0, 0.0, ""

    def run(self, *commands: Command) -> list[Any]:
        """The answers to some commands that are sent together.

        Raises:
            StoreError: there are none in time, or the server refuses one; or the last commands failed, and no new one
                is sent for a second.
        """
        if time.monotonic() < self._silent_until_s:
            raise StoreError(self._last)
        try:
            try:
                found = self._send(commands)
            except self._lost:
                # The server may have been started anew since the connection was made.
                found = self._send(commands)
        except self._failed as error:
            self._last = f"{self.address.text} does not answer: {error}"
            self._num_failures += 1
            if self._num_failures >= _PATIENCE:
                self._silent_until_s = time.monotonic() + _PAUSE_S
            raise StoreError(self._last) from error
        self._num_failures = 0
        return found

    def scan(self, start: str) -> Iterator[list[bytes]]:
        """All keys that begin with a text, some thousands at a time; one may come twice."""
        pattern = "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in start) + "*"
        cursor = b"0"
        while True:
            ((cursor, keys),) = self.run(["SCAN", cursor, "MATCH", pattern, "COUNT", _SCANNED])
            if keys:
                yield keys
            if int(cursor) == 0:
                return

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        with self._redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
            # redis-py would write the command, bytes of rows among it, into its errors.
            found: list[Any] = pipeline.execute(raise_on_error=False)
        for one in found:
            if isinstance(one, Exception):
                raise one
        return found
