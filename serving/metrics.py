"""ServingMetrics: what Prometheus reads of a server."""

import os
import struct
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from recmoe.errors import StoreError
from recmoe.ranking.look_ups import LookUps
from recmoe.ranking.ranked import Ranked
from serving.calibration.metrics import CalibrationMetrics
from serving.calibration.watch import Calibration
from serving.models.holder import ServedModels
from serving.models.metrics import ModelMetrics
from serving.observability.bulk_histogram import BulkHistogram
from serving.observability.call import Call
from serving.orders import SHARED_METRICS
from serving.store_metrics import NAMES, StoreMetrics

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_PREDICTIONS = (
    0.0,
    1e-4,
    1e-3,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    1.0,
    10.0,
    100.0,
    1000.0,
)
_NAMED_FIELDS = 100
"""Names of ignored fields that are counted one by one: clients make them up, and each takes memory for good."""
_OTHER_FIELDS = "(others)"
_READS = 5
"""How often the counts of several processes are read where one of them has just made an empty file for its own."""
_FILLED_S = 0.02
"""Between two reads."""


class ServingMetrics:
    """Counters and histograms of one app; two apps in one process do not share them."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "recmoe_rank_requests",
            "Ranking requests, and under code 500 the faults of every page",
            ["model", "version", "code"],
            registry=registry,
        )
        self._latency_s = Histogram(
            "recmoe_rank_latency_seconds",
            "Time per stage; queue is the wait for a thread, total is from arrival to response",
            ["stage"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._waiting = Gauge(
            "recmoe_rank_queue",
            "Requests that wait for a ranking thread",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._workers = Gauge(
            "recmoe_workers", "Processes whose model is ready", registry=registry, multiprocess_mode="livesum"
        )
        self._refused = Counter(
            "recmoe_refused", "Requests and connections that were refused or cut off", ["reason"], registry=registry
        )
        self._candidates = Histogram(
            "recmoe_rank_candidates", "Candidates per request", buckets=_COUNTS, registry=registry
        )
        self._missing = Counter("recmoe_feature_missing", "Values not given or null", ["feature"], registry=registry)
        self._unknown = Counter("recmoe_feature_oov", "Ids that training has not seen", ["feature"], registry=registry)
        self._ignored = Counter(
            "recmoe_rank_ignored_fields",
            f"Values in fields that the model does not know; the first {_NAMED_FIELDS} names, then {_OTHER_FIELDS}",
            ["field"],
            registry=registry,
        )
        self._named_fields: set[str] = set()
        self._lists = Counter("recmoe_ranked_lists", "Rankings by protocol", ["protocol"], registry=registry)
        self._predictions = BulkHistogram(
            "recmoe_score", "Predictions of all candidates", ["task"], buckets=_PREDICTIONS, registry=registry
        )
        self.models = ModelMetrics(registry)
        self._calibration = CalibrationMetrics(registry)
        self.stores = {name: StoreMetrics(name, registry) for name in NAMES}
        self._known = Gauge(
            "recmoe_items_known", "Items whose first products are kept", registry=registry, multiprocess_mode="livemax"
        )

    def ready(self) -> None:
        """This process has its model."""
        self._workers.set(1)

    def use(self, models: ServedModels, calibration: Calibration) -> None:
        """These are the models now, these are the champion's stores, and so its predictions are."""
        self.models.update(models)
        self._calibration.update(calibration)
        ranker = models.ranker
        if ranker is not None and ranker.items is not None:
            self.stores["items"].use(ranker.items.store)
            self._known.set(ranker.items.num_known)
        if ranker is not None and ranker.users is not None:
            self.stores["users"].use(ranker.users.store)

    def count(self, models: ServedModels, call: Call) -> None:
        """A request was answered; the champion counts where it came to no model."""
        model = call.model or (models.ranker.info if models.ranker is not None else None)
        name, version = (model.name, model.version or "") if model else ("", "")
        self._requests.labels(name, version, str(call.status)).inc()

    def waiting(self, num_requests: int) -> None:
        """So many requests wait for a ranking thread."""
        self._waiting.set(num_requests)

    def refused(self, reason: str) -> None:
        """A request or a connection was refused or cut off."""
        self._refused.labels(reason).inc()

    def stage(self, name: str, time_s: float) -> None:
        """A stage of an answered request took its time."""
        self._latency_s.labels(name).observe(time_s)

    def observe(self, ranked: Ranked, protocol: str) -> None:
        """A list was ranked that came by a protocol."""
        self._lists.labels(protocol).inc()
        self._candidates.observe(ranked.num_candidates)
        for store, look_ups in ranked.look_ups.items():
            self.stores[store].observe(look_ups)
        for name, time_s in ranked.clock.stages_s.items():
            self.stage(name, time_s)
        for warning in ranked.warnings:
            if warning.code == "missing":
                self._missing.labels(warning.feature).inc(warning.count)
            elif warning.code == "unknown":
                self._unknown.labels(warning.feature).inc(warning.count)
            elif warning.code == "unknown_field":
                self._ignored.labels(self._field(warning.feature)).inc(warning.count)
        for task, predictions_C in zip(ranked.task_names, ranked.predictions_CT.T, strict=True):
            self._predictions.labels(task).observe_all(predictions_C)

    def store_failed(self, error: StoreError) -> None:
        """Ids of a request could not be looked up, and so it is not answered."""
        if error.side is not None:
            self.stores["items" if error.side == "item" else "users"].observe(LookUps(num_failed=error.num_ids))
        self.refused("store_away")

    def _field(self, name: str) -> str:
        """The name that an ignored field is counted under."""
        if name not in self._named_fields and len(self._named_fields) >= _NAMED_FIELDS:
            return _OTHER_FIELDS
        self._named_fields.add(name)
        return name

    def page(self) -> bytes:
        """All of it in Prometheus' text format; where several processes serve, what all of them have counted."""
        if SHARED_METRICS not in os.environ:
            return generate_latest(self._registry)
        for _ in range(_READS - 1):
            # A worker that has just started makes a file, and gives it its size a moment later.
            with suppress(struct.error):
                return self._page_of_all()
            time.sleep(_FILLED_S)
        return self._page_of_all()

    @staticmethod
    def _page_of_all() -> bytes:
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def collected(self) -> list[Metric]:
        """What this process has counted, for ``page_of``."""
        return list(self._registry.collect())


def page_of(replicas: Mapping[str, Iterable[Metric]]) -> bytes:
    """One page of what each of several replicas has counted, in Prometheus' text format.

    Each sample has the label ``replica``: a sum would fall when a replica goes, which looks like a restart of all.
    """
    together = CollectorRegistry(auto_describe=False)
    together.register(_Labelled(replicas))
    return generate_latest(together)


class _Labelled(Collector):
    """Metrics of replicas, each sample with the name of its own."""

    def __init__(self, replicas: Mapping[str, Iterable[Metric]]) -> None:
        self._replicas = replicas

    def collect(self) -> Iterable[Metric]:
        together: dict[str, Metric] = {}
        for replica, metrics in self._replicas.items():
            for metric in metrics:
                one = together.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                one.samples += [
                    sample._replace(labels={**sample.labels, "replica": replica}) for sample in metric.samples
                ]
        return together.values()
