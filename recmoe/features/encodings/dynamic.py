"""DynamicIds: a fixed number of rows for ids that come and go; every id has a row of its own or none.

Ids are admitted and evicted at updates, between which nothing moves: training on any number of processes, evaluation
and serving look an id up in the same map, and the table always keeps its shape.
"""

# n ids that are known, m ids of an update, c candidates for a row

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from recmoe.config import Config
from recmoe.features.encodings.lookup import LookupByKeys, RowLookup, Rows, zero_where_null
from recmoe.features.encodings.row_contest import Floats, IdUpdate, Int32s, assign, best, cut, rank_ids
from recmoe.features.id_keys import UInt64s, keys
from recmoe.features.key_index import KeyIndex

CUT_AT = 1 << 20
"""Ids of a period that are gathered, beside those that may matter, before the others are left out."""


class DynamicConfig(Config):
    """Ids that come and go: a fixed number of rows, each of which belongs to one id; any other id is row 0.

    Rows change their owners when the encoder is learned and when it grows (``--warm-start``, ``recmoe daily``), never
    in between.
    """

    is_frequent_first: ClassVar[bool] = False
    can_refuse: ClassVar[bool] = False

    kind: Literal["dynamic"] = "dynamic"
    capacity: PositiveInt = 100_000
    """Rows beside row 0; their number never changes."""
    admit_after: PositiveInt = 2
    """Occurrences an id needs to get a row, over however many updates."""
    evict: Literal["least_frequent", "least_recent"] = "least_frequent"
    """Who gives up a row when there are more such ids than rows."""
    half_life: PositiveFloat = 7.0
    """Updates after which an occurrence counts half as much for ``least_frequent``."""
    forget_after: PositiveInt | None = None
    """Updates without an occurrence after which an id loses its row in any case; never by default."""

    @property
    def num_planned_ids(self) -> int:
        return self.capacity

    def build(self, *, learned: RowLookup | None, seed: int) -> RowLookup:
        assert learned is not None
        return learned

    def grow(self, earlier: RowLookup | None) -> "DynamicGrowth":
        if earlier is None:
            earlier = DynamicIds.empty(self.capacity)
        if not isinstance(earlier, DynamicIds):
            earlier = DynamicIds.holding(*earlier.holders(), self)
        return DynamicGrowth(self, earlier)

    def fewer_unknown(self, path: str) -> str:
        return ""


class DynamicIds:
    """Ids that are known, with the row of each or 0 while it waits for one.

    An id is admitted once it has been seen ``admit_after`` times, over however many updates. While there are more such
    ids than rows, those with the highest rank hold them: by ``least_frequent`` the sightings of which each update takes
    away a share (half after ``half_life`` updates), by ``least_recent`` the update that saw the id last. An id that
    holds a row wins a tie, and keeps its row number; rows that become free go to the newcomers.

    Example: capacity 2, admit_after 2, half_life 1::

        update    seen            rows                        sightings, halved each time
        1         a a a b b c     1 a  2 b    waiting c       a 3    b 2    c 1
        2         c c c b         1 c  2 b    waiting a       a 1.5  b 2    c 3.5

    Args:
        keys_n: known ids as 64-bit keys, in ascending order.
        rows_n: of each, 0 for none.
        sightings_n: of each, since it was first seen.
        weights_n: of each, its sightings with the older ones worth less.
        seen_n: of each, the last update that saw it.
        last: the update that led here; None for no update.
    """

    def __init__(
        self,
        *,
        capacity: int,
        keys_n: UInt64s,
        rows_n: Rows,
        sightings_n: Int32s,
        weights_n: Floats,
        seen_n: Int32s,
        last: IdUpdate | None,
    ) -> None:
        self.capacity = capacity
        self.keys_n = keys_n
        self.rows_n = rows_n
        self.sightings_n = sightings_n
        self.weights_n = weights_n
        self.seen_n = seen_n
        self.last = last

    @classmethod
    def empty(cls, capacity: int) -> "DynamicIds":
        """No id is known."""
        nothing = np.zeros(0, np.int32)
        return cls(
            capacity=capacity,
            keys_n=np.zeros(0, np.uint64),
            rows_n=np.zeros(0, np.int64),
            sightings_n=nothing,
            weights_n=np.zeros(0, np.float32),
            seen_n=nothing,
            last=None,
        )

    @classmethod
    def holding(cls, keys_n: UInt64s, rows_n: Rows, config: DynamicConfig) -> "DynamicIds":
        """Ids that an earlier model gave rows to for good, as if each had just earned its row."""
        fits = np.flatnonzero(rows_n <= config.capacity)
        order = fits[np.argsort(keys_n[fits], kind="stable")]
        return cls(
            capacity=config.capacity,
            keys_n=keys_n[order],
            rows_n=rows_n[order],
            sightings_n=np.full(len(order), config.admit_after, np.int32),
            weights_n=np.full(len(order), config.admit_after, np.float32),
            seen_n=np.zeros(len(order), np.int32),
            last=None,
        )

    @property
    def num_rows(self) -> int:
        return self.capacity + 1

    def rows(self, ids: pa.Array, *, name: str) -> Rows:
        return zero_where_null(ids, self.rows_of_keys(keys(ids)))

    def rows_of_keys(self, keys_n: UInt64s) -> Rows:
        index, row_of_place = self._index
        return row_of_place[index.rows(keys_n)]

    @cached_property
    def _index(self) -> tuple[KeyIndex, Rows]:
        """Places among those that hold rows, from 1 on, and the row of each place."""
        held_keys, held_rows = self.holders()
        return KeyIndex(held_keys), np.append(np.int64(0), held_rows)

    def holders(self) -> tuple[UInt64s, Rows]:
        held_n = self.rows_n > 0
        return self.keys_n[held_n], self.rows_n[held_n]

    @staticmethod
    def together(lookups: "Sequence[DynamicIds]") -> LookupByKeys:
        return LookupByKeys(lookups)

    @property
    def digest(self) -> str:
        """Hash of what is known."""
        digest = hashlib.sha256(str(self.capacity).encode())
        for column in (self.keys_n, self.rows_n, self.sightings_n, self.weights_n, self.seen_n):
            digest.update(column.astype(column.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    def to_table(self) -> pa.Table:
        """A row per known id."""
        return pa.table(
            {
                "key": self.keys_n,
                "row": self.rows_n,
                "sightings": self.sightings_n,
                "weight": self.weights_n,
                "seen": self.seen_n,
            }
        )

    def to_json(self) -> dict[str, Any]:
        """What a table does not hold."""
        return {"capacity": self.capacity, "last": None if self.last is None else asdict(self.last)}

    @classmethod
    def from_table(cls, table: pa.Table, values: Mapping[str, Any]) -> "DynamicIds":
        """The inverse of ``to_table`` and ``to_json``."""
        return cls(
            capacity=values["capacity"],
            keys_n=table["key"].to_numpy(),
            rows_n=table["row"].to_numpy(),
            sightings_n=table["sightings"].to_numpy(),
            weights_n=table["weight"].to_numpy(),
            seen_n=table["seen"].to_numpy(),
            last=None if values["last"] is None else IdUpdate(**values["last"]),
        )

    def candidates(self, counts: Iterable[pa.Table], config: DynamicConfig) -> pa.Table:
        """Of all ids of a period, those that an update depends on: known ones, and of the others the most frequent.

        New ids can win as many rows as there are and wait for as many, so that twice as many decide; which of them,
        and so the update, depends on the counts alone, and not on the parts that they come in.

        Args:
            counts: tables with the columns ``key`` and ``count``, each id in one of them.
            config: as for ``updated``.

        Returns:
            The same columns in the order of the keys.
        """
        parts: list[pa.Table] = [pa.table({"key": pa.array([], pa.uint64()), "count": pa.array([], pa.int64())})]
        num_gathered = num_kept = 0
        for table in counts:
            parts.append(table.select(["key", "count"]))
            num_gathered += table.num_rows
            if num_gathered > num_kept + max(CUT_AT, num_kept):
                parts = [cut(parts, known_n=self.keys_n, num_new=2 * config.capacity)]
                num_gathered = num_kept = parts[0].num_rows
        return cut(parts, known_n=self.keys_n, num_new=2 * config.capacity)

    def updated(
        self,
        keys_m: UInt64s,
        counts_m: NDArray[np.int64],
        config: DynamicConfig,
        *,
        num_sightings: int | None = None,
    ) -> "DynamicIds":
        """The ids after a period.

        Args:
            keys_m: different ids that were seen, ascending: all of them, or ``candidates``.
            counts_m: how often each was seen.
            config: capacity and rules, which may be others than before.
            num_sightings: of all ids of the period; by default those of ``counts_m``.
        """
        number = 1 + (0 if self.last is None else self.last.number)
        known = np.union1d(self.keys_n, keys_m)
        old, new = np.searchsorted(known, self.keys_n), np.searchsorted(known, keys_m)
        rows = np.zeros(len(known), np.int64)
        sightings, weights = np.zeros(len(known), np.int64), np.zeros(len(known), np.float32)
        seen = np.zeros(len(known), np.int32)
        # A row beyond a smaller capacity is given up; its id competes for another.
        rows[old] = np.where(self.rows_n <= config.capacity, self.rows_n, 0)
        sightings[old], seen[old] = self.sightings_n, self.seen_n
        weights[old] = self.weights_n * np.float32(0.5 ** (1.0 / config.half_life))
        sightings[new] += counts_m
        weights[new] += counts_m
        seen[new] = number
        held_before = np.zeros(len(known), np.bool_)
        held_before[old] = self.rows_n > 0

        is_fresh = np.ones(len(known), np.bool_)
        if config.forget_after is not None:
            is_fresh = seen > number - config.forget_after
        ranks = rank_ids(weights, seen, rows > 0, evict=config.evict)
        wins = best(is_fresh & (held_before | (sightings >= config.admit_after)), ranks, config.capacity)
        rows = assign(rows, wins, ranks, capacity=config.capacity)
        kept = wins | best(is_fresh & ~wins, ranks, config.capacity)
        total = int(counts_m.sum()) if num_sightings is None else num_sightings
        last = IdUpdate(
            number=number,
            rows_used=int(wins.sum()),
            capacity=config.capacity,
            admitted=int((wins & ~held_before).sum()),
            evicted=int((held_before & ~wins).sum()),
            waiting=int((kept & ~wins).sum()),
            sightings=total,
            unknown_share=1.0 - int(counts_m[wins[new]].sum()) / total if total else 0.0,
        )
        return DynamicIds(
            capacity=config.capacity,
            keys_n=known[kept],
            rows_n=rows[kept],
            sightings_n=np.minimum(sightings[kept], np.iinfo(np.int32).max).astype(np.int32),
            weights_n=weights[kept],
            seen_n=seen[kept],
            last=last,
        )


class DynamicGrowth:
    """Ids that come and go, at their next update: what they were before, and the rules."""

    def __init__(self, config: DynamicConfig, before: DynamicIds) -> None:
        self._config = config
        self._before = before

    def candidates(self, counts: Iterable[pa.Table]) -> pa.Table:
        return self._before.candidates(counts, self._config)

    def finish(self, candidates: pa.Table, *, num_sightings: int) -> DynamicIds:
        keys_m, counts_m = candidates["key"].to_numpy(), candidates["count"].to_numpy()
        return self._before.updated(keys_m, counts_m, self._config, num_sightings=num_sightings)
