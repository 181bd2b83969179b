"""StoredUsers: a user whose columns lie in a store.

What a request gives itself wins. What it leaves out comes from the store; what neither holds is missing.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from recmoe.errors import DataError, SchemaError
from recmoe.features.blocks import BlockRows, same
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import SHARED_SIDES
from recmoe.ranking.columns import RequestDecoder
from recmoe.ranking.items.store import RowStore, check_types
from recmoe.ranking.items.table import nulls_where_absent, taken
from recmoe.ranking.look_ups import LookUps
from recmoe.ranking.request import RankOptions

_PROVED_ROWS = 256


class StoredUsers:
    """A store as one model reads it.

    The lists of a history belong together: where a request gives one of them, none comes from the store.

    Args:
        store: of users.
        encoder: of the model.
        decoder: reads requests for it, the column of the store's ids too.

    Raises:
        DataError: the store holds nothing that the model reads of a user, or columns of other types, or is damaged.
        StoreError: it does not answer.
    """

    def __init__(self, store: RowStore, encoder: FeatureEncoder, decoder: RequestDecoder) -> None:
        self.store = store
        self._decoder = decoder
        columns = decoder.columns["user"]
        check_types(store, columns)
        self._stored = {name for name in columns if name in store.columns.names and name != store.column}
        if not self._stored:
            raise DataError(
                f"{store.where}: holds no column that the model reads of a user ({', '.join(columns)}); "
                "build it again for this model"
            )
        self._together = _lists_of_histories(encoder)
        self._prove(encoder)

    def rows(self, options: RankOptions) -> tuple[BlockRows, LookUps]:
        """The columns of user and context, filled up from the store.

        Raises:
            RequestError: a field does not fit; it is named.
            StoreError: the store does not answer.
        """
        ids = self._decoder.shared_values(options, (self.store.column,))
        if ids.null_count:
            return self._decoder.shared_rows(options), LookUps()
        found = self.store.look_up(ids)
        if found.places_C[0] < 0:
            return self._decoder.shared_rows(options), found.look_ups
        place = pa.array(found.places_C)
        filled = self._stored - self._given_lists(options)

        def fill(names: Sequence[str], given: pa.Array) -> pa.Array:
            if not given.null_count or filled.isdisjoint(names):
                return given
            stored = [
                taken(found.rows.column(name), place, given.type) if name in filled else pa.nulls(1, given.type)
                for name in names
            ]
            return pc.coalesce(given, pa.concat_arrays(stored))

        return self._decoder.shared_rows(options, fill), found.look_ups

    def _given_lists(self, options: RankOptions) -> set[str]:
        """Lists of histories of which a request gives one."""
        given = {name for name, value in options.user.items() if value is not None}
        return set().union(*(lists for lists in self._together if not given.isdisjoint(lists)))

    def _prove(self, encoder: FeatureEncoder) -> None:
        """DataError where a sample of the store is encoded otherwise than the same rows in training."""
        sample, shared = self.store.sample(_PROVED_ROWS), self._decoder.shared
        rows = sample.rows.take(pa.array(sample.places_C))
        for side in SHARED_SIDES:
            rows = nulls_where_absent(rows, self._decoder.columns[side])
        try:
            found = shared.encode(shared.of_table(rows)).batch
            if same(found, encoder.encode(rows, sides=SHARED_SIDES, with_labels=False)):
                return
            reason = "its rows are encoded otherwise than in training"
        except (DataError, SchemaError) as error:
            reason = str(error)
        raise DataError(f"{self.store.where}: {reason}; build it again with recmoe users build")


def _lists_of_histories(encoder: FeatureEncoder) -> list[set[str]]:
    """Columns whose lists have an element for each event, by feature."""
    found = []
    for name, feature in encoder.schema.features.items():
        lists = {column.name for column in feature.raw_columns(name) if column.holds in ("ids", "times")}
        if feature.side == "user" and len(lists) > 1:
            found.append(lists)
    return found
