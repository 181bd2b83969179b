"""Items and users whose columns the server keeps, so that a request may hold ids alone."""

from recmoe.ranking.items.arrow_store import ArrowStore
from recmoe.ranking.items.opening import open_store
from recmoe.ranking.items.store import RowStore

__all__ = ["ArrowStore", "RowStore", "open_store"]
