"""ModelMetrics: what Prometheus reads of the models of a server."""

import threading
import time
from datetime import datetime
from functools import partial

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serving.models.holder import ServedModels
from serving.models.refusal import Role
from serving.observability.bulk_histogram import BulkHistogram

_DIFFERENCES = (1e-6, 1e-5, 1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0, 100.0)
_SHARES = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class ModelMetrics:
    """Which models are in use, how they changed, and what was refused.

    A version that is in use no more stays, at 0: of several processes the highest value counts.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        count = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry, multiprocess_mode="livemax")
        self._info = gauge("recmoe_model_info", "1 for a model in use", ["role", "model", "version", "digest"])
        self._age_s = gauge("recmoe_model_age_seconds", "Seconds since the champion's bundle was exported")
        self._swaps = count(
            "recmoe_model_swaps",
            "Versions that an alias came to name: loaded, kept (in memory still), refused, superseded while it was "
            "loaded; removed where it names none any more",
            ["role", "outcome"],
        )
        self._refused = gauge(
            "recmoe_model_refused", "1 for a version that an alias names and that is refused", ["role", "version"]
        )
        self._registry_failures = count(
            "recmoe_registry_failures", "Times that the registry did not say what its aliases name"
        )
        self._fetched = count(
            "recmoe_model_fetched_bytes",
            "Bytes that came from the artifact store, of versions that travel whole or as a delta of an earlier one",
            ["form"],
        )
        self._routed = count(
            "recmoe_split_requests",
            "Requests by whom they were given to while there is a challenger; no_user: the champion, for want of an id",
            ["arm"],
        )
        self._lightened = count("recmoe_rank_lighter", "Answers of the light version, as another one's would be late")
        self._shadowed = count(
            "recmoe_shadow_requests",
            "Requests for the shadow: ranked, dropped as too many waited, or error",
            ["outcome"],
        )
        self._difference = BulkHistogram(
            "recmoe_shadow_score_difference",
            "Between the scores of champion and shadow, absolute, by item",
            buckets=_DIFFERENCES,
            registry=registry,
        )
        self._agreement = Histogram(
            "recmoe_shadow_top_agreement",
            "Share of the champion's first ten items that are among the shadow's",
            buckets=_SHARES,
            registry=registry,
        )
        self._told: dict[Gauge, set[tuple[str, ...]]] = {self._info: set(), self._refused: set()}
        self._lock = threading.Lock()

    def update(self, models: ServedModels) -> None:
        """These are the models now, and so old is the champion."""
        in_use: set[tuple[str, ...]] = {
            (role, ranker.info.name, ranker.info.version or "", ranker.info.digest) for role, ranker in models.by_role()
        }
        refused: set[tuple[str, ...]] = {(refusal.role, refusal.version) for refusal in list(models.refused.values())}
        champion = models.ranker
        with self._lock:
            self._tell(self._info, in_use)
            self._tell(self._refused, refused)
            if champion is not None:
                created_s = datetime.fromisoformat(champion.bundle.created_at).timestamp()
                self._age_s.set(time.time() - created_s)

    def _tell(self, gauge: Gauge, labels: set[tuple[str, ...]]) -> None:
        for one in self._told[gauge] | labels:
            gauge.labels(*one).set(1 if one in labels else 0)
        self._told[gauge] |= labels

    def swap(self, role: Role, outcome: str) -> None:
        """An alias names another version, and that came of it."""
        self._swaps.labels(role, outcome).inc()

    def fetched(self, num_bytes: int, *, is_delta: bool) -> None:
        """A version has come from the registry."""
        self._fetched.labels("delta" if is_delta else "whole").inc(num_bytes)

    def registry_failed(self) -> None:
        """The registry did not answer."""
        self._registry_failures.inc()

    def routed(self, arm: str) -> None:
        """A request was given to this arm of the split."""
        self._routed.labels(arm).inc()

    def lightened(self) -> None:
        """The light version answered a request in the place of another one."""
        self._lightened.inc()

    def shadowed(self, outcome: str) -> None:
        """That became of a request for the shadow."""
        self._shadowed.labels(outcome).inc()

    def compared(self, differences_C: NDArray[np.float64], *, agreement: float) -> None:
        """Champion and shadow ranked a request.

        Args:
            differences_C: between their scores; NaN where one of them gave none.
            agreement: the share of the first items that both have.
        """
        self.shadowed("ranked")
        self._difference.observe_all(differences_C)
        self._agreement.observe(agreement)
