"""row_sources(): which row of an earlier model's table each row of a table goes on from."""

# V rows of the table, n ids

import numpy as np

from recmoe.features.encoder import FeatureEncoder
from recmoe.features.encodings.hashed import HashedIds
from recmoe.features.encodings.index import IndexedIds
from recmoe.features.encodings.lookup import RowLookup, Rows


def row_sources(table: str, *, old: FeatureEncoder, new: FeatureEncoder) -> Rows:
    """The old row of each row of a table, -1 where a row begins anew.

    Rows go with their ids, whatever number they have in either model; row 0, "unknown", goes on from row 0. Buckets of
    a number go on where their edges are the same. An id that shared a hashed row begins its own row with it.

    Example: Rome, Oslo grows by Paris, which is also seen to have pushed Oslo out::

        old rows    0 unknown  1 Rome  2 Oslo
        new rows    0 unknown  1 Rome  2 Paris
        sources     0          1       -1

    Args:
        table: of the new encoder; all of its rows begin anew where the old one has no table of that name.
    """
    num_rows = next(spec.num_rows for spec in new.layout.tables if spec.name == table)
    sources_V = np.full(num_rows, -1, np.int64)
    if all(spec.name != table for spec in old.layout.tables):
        return sources_V
    sources_V[0] = 0
    if table in new.lookups:
        _follow_ids(sources_V, old.lookups.get(table), new.lookups[table])
    elif _edges(old, table) == _edges(new, table):
        sources_V[:] = np.arange(num_rows)
    return sources_V


def _follow_ids(sources_V: Rows, old: RowLookup | None, new: RowLookup) -> None:
    if old is None:
        return
    if isinstance(new, HashedIds):
        if isinstance(old, HashedIds) and new.hashes_like(old):
            sources_V[:] = np.arange(len(sources_V))
        return
    if isinstance(old, IndexedIds) and isinstance(new, IndexedIds):
        num_kept = min(old.num_rows, new.num_rows)
        sources_V[:num_kept] = np.arange(num_kept)
        return
    keys_n, rows_n = new.holders()
    found_n = old.rows_of_keys(keys_n)
    sources_V[rows_n] = np.where(found_n > 0, found_n, -1)


def _edges(encoder: FeatureEncoder, table: str) -> tuple[float, ...] | None:
    """Edges of the number whose buckets a table holds; None for a table of ids."""
    for key in encoder.layout.sparse:
        if key.table == table and key.feature in encoder.state.numbers:
            return encoder.state.numbers[key.feature].edges
    return None
