"""RowCache: rows that were asked for last, within a number of bytes, and not for long."""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence

_ENTRY_BYTES = 200
"""What an entry takes beside the bytes of its row."""

Row = bytes | None
"""None for an id that the store does not have."""


class RowCache:
    """Threads may share it.

    Args:
        max_bytes: of all entries; the one that was not asked for longest goes first. 0 for no cache.
        keep_s: seconds after which an entry is asked for anew.
    """

    def __init__(self, *, max_bytes: int, keep_s: float) -> None:
        self._max_bytes, self._keep_s = max_bytes, keep_s
        self._entries: OrderedDict[str, tuple[Row, float]] = OrderedDict()
        self._lock = threading.Lock()
        self.num_bytes = 0

    def get(self, keys: Sequence[str]) -> dict[str, Row]:
        """The entries of those keys that have one."""
        found: dict[str, Row] = {}
        now_s = time.monotonic()
        with self._lock:
            for key in keys:
                entry = self._entries.get(key)
                if entry is None:
                    continue
                if entry[1] <= now_s:
                    self._drop(key)
                    continue
                self._entries.move_to_end(key)
                found[key] = entry[0]
        return found

    def put(self, rows: Mapping[str, Row]) -> None:
        """Keep some rows, as long as there is room."""
        end_s = time.monotonic() + self._keep_s
        with self._lock:
            for key, row in rows.items():
                if key in self._entries:
                    self._drop(key)
                self._entries[key] = row, end_s
                self.num_bytes += _num_bytes(row)
            while self.num_bytes > self._max_bytes:
                self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        row, _ = self._entries.pop(key)
        self.num_bytes -= _num_bytes(row)


def _num_bytes(row: Row) -> int:
    return _ENTRY_BYTES + (0 if row is None else len(row))
