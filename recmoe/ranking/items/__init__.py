"""Items whose columns the server keeps, so that a request may hold ids alone."""

from recmoe.ranking.items.store import ItemStore

__all__ = ["ItemStore"]
