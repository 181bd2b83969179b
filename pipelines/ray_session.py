"""One Ray session per command: the cluster that RAY_ADDRESS names, or a small one on this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def ray_session(*, num_workers: int) -> Iterator[None]:
    """Connect to Ray, or start it here with room for the workers; leave it as it was found."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    import ray

    if ray.is_initialized():
        yield
        return
    _connect(num_workers)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(num_workers: int) -> None:
    import ray

    settings = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**settings)
        return
    num_cpus = max(num_workers + 1, psutil.cpu_count() or 1)
    try:
        ray.init(num_cpus=num_cpus, include_dashboard=False, **settings)
    except Exception:
        # On a busy machine Ray sometimes outruns its own start limit; the second start finds warm files.
        ray.shutdown()
        ray.init(num_cpus=num_cpus, include_dashboard=False, **settings)
