"""StoreMetrics: what Prometheus reads of a store of items or users."""

import time
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

from recmoe.ranking.items import RowStore
from recmoe.ranking.look_ups import LookUps, StoreName

NAMES: tuple[StoreName, ...] = ("items", "users")


class StoreMetrics:
    """Of one store: what is in it, what was found in it, and how it was replaced."""

    def __init__(self, name: StoreName, registry: CollectorRegistry) -> None:
        def gauge(end: str, text: str) -> Gauge:
            return Gauge(f"recmoe_{name}{end}", text, registry=registry, multiprocess_mode="livemax")

        self._num_rows = gauge("", f"{name.capitalize()} in the store")
        self._age_s = gauge("_age_seconds", f"Seconds since the store of {name} was written")
        self._is_refused = gauge(
            "_refused", f"1 while the newest store of {name} cannot be used, and the one before is"
        )
        self._look_ups = Counter(
            f"recmoe_{name}_lookups",
            "Ids looked up: hit, miss (not in the store), error (the store did not answer)",
            ["outcome"],
            registry=registry,
        )
        self._cached = Counter(
            f"recmoe_{name}_cached", "Hits and misses that a worker knew without asking the store", registry=registry
        )
        self._swaps = Counter(
            f"recmoe_{name}_swaps",
            "New stores: loaded, refused (the one before is used), failed (tried again at the next look)",
            ["outcome"],
            registry=registry,
        )

    def use(self, store: RowStore) -> None:
        """This is the store now."""
        self._num_rows.set(store.num_rows)
        self._age_s.set(time.time() - store.written_at.timestamp())

    def observe(self, look_ups: LookUps) -> None:
        """A request has looked ids up."""
        counts = {"hit": look_ups.num_hits, "miss": look_ups.num_misses, "error": look_ups.num_failed}
        for outcome, count in counts.items():
            if count:
                self._look_ups.labels(outcome).inc(count)
        self._cached.inc(look_ups.num_cached)

    def swap(self, outcome: Literal["loaded", "refused", "failed"]) -> None:
        """That came of a new store."""
        self._swaps.labels(outcome).inc()

    def refuses(self, is_refused: bool) -> None:
        """Whether the store is not the newest one."""
        self._is_refused.set(is_refused)
