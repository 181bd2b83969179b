"""One Ray session per command: the cluster that RAY_ADDRESS names, or a small one on this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    # A dead worker is noticed by polling, and its peers are let go without a long farewell.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5",
}
"""Environment of Ray's processes, unless the caller's says otherwise."""
LOCAL_SETTINGS = {
    # Nobody takes this machine away: one process less per start and restart.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


@contextmanager
def ray_session(*, num_workers: int) -> Iterator[None]:
    """Connect to Ray, or start it here with room for the workers; leave it as it was found."""
    for name, value in (SETTINGS if os.environ.get("RAY_ADDRESS") else {**SETTINGS, **LOCAL_SETTINGS}).items():
        os.environ.setdefault(name, value)
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

    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**settings)
        return
    # "local": another run on this machine has a Ray of its own, which must not be joined.
    settings |= {"address": "local", "num_cpus": max(num_workers + 1, psutil.cpu_count() or 1)}
    try:
        ray.init(include_dashboard=False, **settings)
    except Exception:
        # On a busy machine Ray sometimes outruns its own start limit; the second start finds warm files.
        ray.shutdown()
        ray.init(include_dashboard=False, **settings)
