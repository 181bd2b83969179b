"""StoredItems: candidates of a request whose columns lie in a store.

What a candidate gives itself wins. What it leaves out comes from the store; what neither holds is missing.
"""

# N items, C candidates of a request, S of them stored

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recmoe.errors import DataError
from recmoe.features.batch import Batch
from recmoe.features.blocks import BlockRows, EncodedRows, concatenated, same, side_by_side
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import OWN_SIDES
from recmoe.model.known_items import KnownItems
from recmoe.ranking.columns import AnyRequest, RequestDecoder, block_encoder
from recmoe.ranking.items.candidate_rows import CandidateRows, EncodedCandidates
from recmoe.ranking.items.encoded import EncodedItems, blocks_of
from recmoe.ranking.items.first_items import FirstItems
from recmoe.ranking.items.store import FoundRows, Places, RowStore, check_types
from recmoe.ranking.items.table import item_column, lacking, nulls_where_absent, taken
from recmoe.ranking.look_ups import LookUps

_PROVED_ROWS = 256


class StoredItems:
    """A store as one model reads it.

    Args:
        store: of items.
        encoder: of the model.
        decoder: reads requests for it.

    Raises:
        SchemaError, DataError: the store does not fit the model, or is damaged; see ``RowStore``.
        StoreError: it does not answer.
    """

    def __init__(self, store: RowStore, encoder: FeatureEncoder, decoder: RequestDecoder) -> None:
        self.store = store
        self._columns = decoder.columns["item"]
        self.item = item_column(encoder)
        if self.item != store.column:
            raise DataError(
                f"{store.where}: its items are named by column {store.column!r}, the model's by {self.item!r}; "
                "build it again for this model"
            )
        self._decoder = decoder
        self.encoded = store.encoded(encoder)
        """All rows of the store; None where they are encoded when they have been found."""
        if self.encoded is None:
            check_types(store, self._columns)
        self.lacking = lacking(store.columns.names, self._columns)
        """Columns that requests have to give."""
        self._blocks, stored = blocks_of(store.columns.names, encoder)
        features = {name for name, feature in encoder.schema.features.items() if feature.side in OWN_SIDES}
        self._rest = block_encoder(encoder, OWN_SIDES, self._columns, features=features - {*stored})
        self.is_whole = features == {*stored}
        """Whether the store holds all that the model reads of an item."""
        self.known: KnownItems | None = None
        """The first items of the store, whose products are known."""
        self._encoder = encoder
        self._first: FirstItems | None = None
        """The same of a store elsewhere: what they are made of."""
        self._stored_columns = [name for name in self._columns if name in store.columns.names and name != self.item]
        self._prove(encoder)

    @property
    def num_known(self) -> int:
        """Items whose products are known."""
        return 0 if self.known is None else self.known.products.num_items

    @property
    def at_hand(self) -> EncodedItems | None:
        """Rows of the store by place, as the model reads them: all where it is on this machine, else the first ones."""
        return self.encoded if self._first is None else self._first.encoded

    def read_first(self, num_rows: int) -> bool:
        """Have the first rows at hand, and more where the store is on this machine; whether the store knows which."""
        if self.encoded is None:
            self._first = FirstItems.read(self.store, self._encoder, num_rows)
        return self.at_hand is not None

    def most_known(self, *, bytes_each: int, max_bytes: int) -> int:
        """How many of the rows at hand may be known, where products take so many bytes each, and the rows theirs."""
        if self._first is None:
            return min(self.store.num_rows, max_bytes // bytes_each)
        return self._first.most(bytes_each=bytes_each, max_bytes=max_bytes)

    def know(self, known: KnownItems | None) -> None:
        """Keep products from now on, or none; rows of a store elsewhere as far as they go."""
        self.known = known
        self._first = None if known is None or self._first is None else self._first.head(self.num_known)

    def rows(self, request: AnyRequest, item_keys: pa.Array) -> tuple[CandidateRows, LookUps]:
        """The columns of candidates that a request gives itself, and where the others are.

        Args:
            item_keys: their ids.

        Raises:
            RequestError: a field does not fit; it is named.
            StoreError: the store does not answer.
        """
        given = {name: self._decoder.own_column(request, name) for name in self._given(request)}
        is_plain_C = np.ones(len(item_keys), np.bool_)
        for column in given.values():
            is_plain_C &= column.is_null().to_numpy(zero_copy_only=False)
        found, known_C = self._look_up(item_keys, is_plain_C)
        places_C, is_known_C = found.places_C, known_C >= 0
        is_plain_C &= is_known_C | (places_C >= 0)
        num_known, num_plain = int(np.count_nonzero(is_known_C)), int(np.count_nonzero(is_plain_C))
        if 0 < num_known < len(places_C) or 0 < num_plain < len(places_C):
            order_C = np.argsort(-(is_plain_C.astype(np.int8) + is_known_C), kind="stable")
        else:
            order_C = np.arange(len(places_C))
        stored, others = order_C[num_known:num_plain], order_C[num_plain:]
        rows = CandidateRows(
            order_C=order_C,
            found=found,
            known_H=known_C[order_C[:num_known]],
            stored_S=places_C[stored],
            rest=self._rest_rows(request, stored.tolist()),
            given=self._given_rows(request, given, others, found) if len(others) else None,
        )
        return rows, found.look_ups

    def encode(self, rows: CandidateRows) -> EncodedCandidates:
        """The rows as the model reads them; DataError or SchemaError as an encoder."""
        parts = []
        if len(rows.stored_S) or rows.given is None:
            parts.append(self._stored(rows.found, rows.stored_S, rows.rest))
        if rows.given is not None:
            parts.append(self._decoder.own.encode(rows.given))
        known_missing, known_unknown = self.at_hand.unknown_to_the_model(rows.known_H) if self.at_hand else ({}, {})
        return EncodedCandidates(
            EncodedRows(
                concatenated([part.batch for part in parts], self._decoder.own.layout),
                _added([known_missing, *(part.missing for part in parts)]),
                _added([known_unknown, *(part.unknown for part in parts)]),
            ),
            rows.known_H,
            rows.order_C,
        )

    def batch(self, places_N: Places) -> Batch:
        """Rows at hand of a store that holds all that the model reads."""
        assert self.is_whole
        assert self.at_hand is not None
        return self.at_hand.rows(places_N).batch

    def _look_up(self, item_keys: pa.Array, is_plain_C: NDArray[np.bool_]) -> tuple[FoundRows, Places]:
        """What the store has of the candidates, and of those whose products are known, the place.

        A store elsewhere is not asked for these.

        Args:
            is_plain_C: which give no column of the store themselves.
        """
        if self._first is None:
            found = self.store.look_up(item_keys)
            is_known_C = is_plain_C & (found.places_C < self.num_known)
            return found, np.where(is_known_C, found.places_C, -1)
        known_C = np.where(is_plain_C, self._first.places(item_keys), -1)
        wanted_C = np.flatnonzero(known_C < 0)
        found = self.store.look_up(item_keys.take(pa.array(wanted_C)))
        places_C = np.full(len(item_keys), -1)
        places_C[wanted_C] = found.places_C
        return FoundRows(places_C, found.rows, found.look_ups.with_known(len(item_keys) - len(wanted_C))), known_C

    def _given(self, request: AnyRequest) -> Sequence[str]:
        """Columns of the store that candidates give themselves."""
        rows = request.candidates
        names = set().union(*rows) if isinstance(rows, list) else {*rows}
        return [name for name in self._stored_columns if name in names] if len(names) > 1 else []

    def _rest_rows(self, request: AnyRequest, places: Sequence[int]) -> BlockRows:
        if self.is_whole:
            return BlockRows([], None, len(places))
        return self._decoder.own_rows(request, self._rest, places)

    def _given_rows(
        self, request: AnyRequest, given: Mapping[str, pa.Array], places: Places, found: FoundRows
    ) -> BlockRows:
        """Candidates that give columns of the store themselves, or are not in it.

        Args:
            given: columns of all candidates.
            places: which candidates.
            found: what the store has of all candidates.
        """
        rows = found.places_C[places]
        at, of_store = pa.array(places), pa.array(rows, mask=rows < 0)
        columns = {}
        for name, column in self._columns.items():
            if name in self._stored_columns:
                values = taken(found.rows.column(name), of_store, column.type)
                columns[name] = pc.coalesce(given[name].take(at), values) if name in given else values
            else:
                columns[name] = self._decoder.own_column(request, name).take(at)
        return self._decoder.own.of_table(pa.table(columns))

    def _stored(self, found: FoundRows, places_S: Places, rest: BlockRows) -> EncodedRows:
        """Rows of the store with the features that it does not hold beside them."""
        if self.encoded is not None:
            stored = self.encoded.rows(places_S)
        else:
            stored = self._blocks.encode(self._blocks.of_table(found.rows.take(pa.array(places_S))))
        if self.is_whole:
            return stored
        others = self._rest.encode(rest)
        parts = [(self._blocks.layout, stored.batch), (self._rest.layout, others.batch)]
        return EncodedRows(
            side_by_side(parts, self._decoder.own.layout),
            {**stored.missing, **others.missing},
            {**stored.unknown, **others.unknown},
        )

    def _prove(self, encoder: FeatureEncoder) -> None:
        """DataError where a sample of the store is encoded otherwise than the same rows in training."""
        sample = self.store.sample(_PROVED_ROWS)
        rows = nulls_where_absent(sample.rows.take(pa.array(sample.places_C)), self._columns)
        found = self._stored(sample, sample.places_C, self._rest.of_table(rows))
        if not same(found.batch, encoder.encode(rows, sides=OWN_SIDES, with_labels=False)):
            raise DataError(
                f"{self.store.where}: its rows are encoded otherwise than in training; "
                "build it again with recmoe items build"
            )


def _added(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for of_part in counts:
        for name, num in of_part.items():
            total[name] = total.get(name, 0) + num
    return total
