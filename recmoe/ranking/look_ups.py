"""LookUps: what became of the ids that a request has looked up in a store."""

from typing import Literal, NamedTuple

StoreName = Literal["items", "users"]
"""What a store holds."""


class LookUps(NamedTuple):
    """Counts of one request."""

    num_hits: int = 0
    """Ids whose row is in the store."""
    num_misses: int = 0
    """Ids that the store does not have."""
    num_failed: int = 0
    """Ids that were not looked up, for the store did not answer."""
    num_cached: int = 0
    """Hits and misses of which this process knew without asking."""

    def with_known(self, num_items: int) -> "LookUps":
        """With items beside that are known, so that the store need not be asked."""
        return self._replace(num_hits=self.num_hits + num_items, num_cached=self.num_cached + num_items)
