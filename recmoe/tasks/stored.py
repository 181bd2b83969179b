"""with_stored_tasks(): the config that a run or a bundle keeps, as this version reads it."""

from collections.abc import Mapping
from typing import Any


def with_stored_tasks(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same config, with what its tasks meant when it was stored.

    A config is stored with every default. One that does not say what a log1p regression predicts is of a version in
    which it had one logit, near the median.
    """
    tasks = config.get("tasks")
    if not isinstance(tasks, Mapping):
        return dict(config)
    return {**config, "tasks": {name: _stored(task) for name, task in tasks.items()}}


def _stored(task: Any) -> Any:
    if isinstance(task, Mapping) and task.get("kind") == "regression" and task.get("transform") == "log1p":
        return {"predicts": "median", **task}
    return task
