"""FirstItems: the first items of a store elsewhere as a model reads them, in this process and known by their ids."""

# N items, C ids of a request

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recmoe.features.arrow_ids import IdBlock
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.id_keys import UInt64s
from recmoe.ranking.items.encoded import EncodedItems
from recmoe.ranking.items.store import Places, RowStore

_KEY_BYTES = 16
"""Of an id and its place."""


@dataclass(frozen=True)
class FirstItems:
    """N items.

    Example: of ids with the keys 8, 3 and 9 in the order of the store, keys_N is [3, 8, 9] and places_N [1, 0, 2].
    """

    encoded: EncodedItems
    keys_N: UInt64s
    places_N: Places

    @classmethod
    def read(cls, store: RowStore, encoder: FeatureEncoder, num_rows: int) -> "FirstItems | None":
        """As many as there are, some thousand rows in memory at a time; None where the store knows no order.

        Raises:
            DataError: a row is missing or damaged.
            StoreError: the store does not answer.
        """
        keys: list[UInt64s] = []

        def chunks() -> Iterator[pa.Table]:
            for chunk in store.first_rows(num_rows):
                keys.append(IdBlock(chunk.column(store.column).chunk(0), 1).keys_KB[0])
                yield chunk

        encoded = EncodedItems.of_chunks(chunks(), store.columns.names, encoder, min(num_rows, store.num_rows))
        if not keys:
            return None
        keys_N = np.concatenate(keys)
        places_N = np.argsort(keys_N)
        return cls(encoded, keys_N[places_N], places_N)

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.keys_N)

    def places(self, ids: pa.Array) -> Places:
        """Of each of C ids its place, -1 where it is not among the items."""
        keys_C = IdBlock(ids, 1).keys_KB[0]
        found_C = np.minimum(np.searchsorted(self.keys_N, keys_C), self.num_rows - 1)
        places_C: Places = np.where(self.keys_N[found_C] == keys_C, self.places_N[found_C], -1)
        return places_C

    def most(self, *, bytes_each: int, max_bytes: int) -> int:
        """How many of them there is room for, if something else of so many bytes is kept of each of them."""
        bytes_N = self.encoded.bytes_up_to() + np.arange(1, self.num_rows + 1) * (bytes_each + _KEY_BYTES)
        return int(np.searchsorted(bytes_N, max_bytes, side="right"))

    def head(self, num_rows: int) -> "FirstItems":
        """The first of them."""
        is_kept_N = self.places_N < num_rows
        return FirstItems(self.encoded.head(num_rows), self.keys_N[is_kept_N], self.places_N[is_kept_N])
