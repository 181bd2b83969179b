"""RowStore: columns of items or users by id, wherever they lie; a request may then leave them out."""

# C ids of a request, N rows

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recmoe.errors import DataError
from recmoe.features.columns import plain_type
from recmoe.features.encoder import FeatureEncoder
from recmoe.ranking.items.encoded import EncodedItems
from recmoe.ranking.look_ups import LookUps
from recmoe.ranking.values import RequestColumn

Places = NDArray[np.int64]
StoredSide = Literal["item", "user"]
"""Whose columns a store holds."""


@dataclass(frozen=True)
class FoundRows:
    """What a store has of some ids.

    Example: of the ids [8, 5, 3], where the store has none for 5, and the rows are those of 3 and 8::

        places_C [1, -1, 0]
    """

    places_C: Places
    """Of each id its row, -1 where there is none."""
    rows: pa.Table
    """Raw columns, a chunk each: of the whole store, or of what was found."""
    look_ups: LookUps = field(default_factory=LookUps)


class RowStore(Protocol):
    """Rows of one side, each known by an id; it does not change, another one may come to lie in its place."""

    @property
    def where(self) -> str:
        """What it is called in messages."""

    @property
    def side(self) -> StoredSide:
        """Whose columns they are."""

    @property
    def column(self) -> str:
        """The column of ids."""

    @property
    def columns(self) -> pa.Schema:
        """All columns, that of ids too."""

    @property
    def num_rows(self) -> int:
        """N."""

    @property
    def written_at(self) -> datetime:
        """When it was built."""

    @property
    def identity(self) -> bytes:
        """Differs from that of any other store."""

    def look_up(self, ids: pa.Array) -> FoundRows:
        """The rows of some ids, none of which is null; StoreError where the store does not answer."""

    def sample(self, num_rows: int) -> FoundRows:
        """Rows from all over the store, at most so many; DataError where it is damaged, StoreError as above."""

    def first_rows(self, num_rows: int) -> Iterator[pa.Table]:
        """The first rows, in the order in which they were written, some thousand at a time; none where it is not known.

        Raises:
            DataError: a row is missing or damaged.
            StoreError: the store does not answer.
        """

    def encoded(self, encoder: FeatureEncoder) -> EncodedItems | None:
        """All rows as a model reads them, by place; None where they are encoded when they have been found."""

    def latest(self) -> bytes:
        """The identity of the store that lies in its place now; DataError, StoreError as ``reopened``."""

    def reopened(self) -> "RowStore":
        """The store that lies in its place now.

        Raises:
            DataError: there is none, or it is damaged.
            StoreError: it does not answer.
        """


def check_types(store: RowStore, columns: Mapping[str, RequestColumn]) -> None:
    """DataError where a column of a store is not of the type in which requests give it to a model."""
    for name, column in columns.items():
        if name in store.columns.names and plain_type(store.columns.field(name).type) != plain_type(column.type):
            raise DataError(
                f"{store.where}: its column {name!r} is of type {plain_type(store.columns.field(name).type)}, "
                f"the model reads {plain_type(column.type)}; build it again for this model"
            )
