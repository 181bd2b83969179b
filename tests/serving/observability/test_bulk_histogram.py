"""Many values are counted at once as they would be one by one."""

import numpy as np
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from serving.observability.bulk_histogram import BulkHistogram

BUCKETS = (0.0, 0.125, 0.5, 1.0)


def test_values_are_counted_as_one_by_one() -> None:
    values_N = np.array([-1.0, 0.0, 0.0625, 0.125, 0.125, 0.75, 1.0, 7.0])
    pages = []
    for is_bulk in (True, False):
        registry = CollectorRegistry()
        histogram = (BulkHistogram if is_bulk else Histogram)("score", "", ["task"], buckets=BUCKETS, registry=registry)
        child = histogram.labels("ctr")
        if isinstance(child, BulkHistogram):
            child.observe_all(np.append(values_N, [np.nan, np.inf]))
            child.observe_all(np.array([]))
        else:
            for value in values_N.tolist():
                child.observe(value)
        pages.append([line for line in generate_latest(registry).decode().splitlines() if "_created" not in line])

    assert pages[0] == pages[1]
    assert 'score_bucket{le="0.125",task="ctr"} 5.0' in pages[0]
