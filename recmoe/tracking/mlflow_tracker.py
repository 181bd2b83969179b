"""MlflowTracker: one run in MLflow."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.async_logging.run_operations import RunOperations
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from sqlalchemy.exc import SQLAlchemyError

from recmoe.tracking.mlflow_store import MlflowStore, answering, reason_of
from recmoe.tracking.tracker import Status, allowed_name

_logger = logging.getLogger(__name__)

# Limits of MLflow on one call.
_PARAMS_PER_CALL = 100
_METRICS_PER_CALL = 1000
_MAX_PARAM_LENGTH = 6000
_MAX_KEY_LENGTH = 250
_MAX_DATASET_NAME = 500
_MAX_DIGEST = 36

_MAX_PENDING = 100
"""Calls that may wait to be written before logging waits for them."""

_STATUS: dict[Status, str] = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class MlflowTracker:
    """Records one run; metrics are written in the background.

    Args:
        store: where to.
        run_id: the run, which exists.
        monitor: records the use of the machine; None to leave that out.
    """

    def __init__(self, *, store: MlflowStore, run_id: str, monitor: SystemMetricsMonitor | None) -> None:
        self._store = store
        self._run_id = run_id
        self._monitor = monitor
        self._pending: list[RunOperations] = []
        self._has_warned = False

    @classmethod
    def start(
        cls,
        store: MlflowStore,
        *,
        experiment: str,
        run_name: str,
        run_id: str | None = None,
        parent_id: str | None = None,
        system_metrics: bool = True,
    ) -> "MlflowTracker":
        """Make a run, inside another one where ``parent_id`` names it, or go on with one.

        Raises:
            RegistryError: the store does not know ``run_id``, or fails.
        """
        with answering(store.uri):
            if run_id is None:
                tags = {} if parent_id is None else {MLFLOW_PARENT_RUN_ID: parent_id}
                run = store.client.create_run(store.experiment_id(experiment), run_name=run_name, tags=tags)
            else:
                store.client.update_run(run_id, status="RUNNING")
                run = store.client.get_run(run_id)
            monitor = None
            if system_metrics:
                monitor = SystemMetricsMonitor(
                    run.info.run_id, resume_logging=run_id is not None, tracking_uri=store.uri
                )
                monitor.start()
        return cls(store=store, run_id=run.info.run_id, monitor=monitor)

    @property
    def run_id(self) -> str:
        return self._run_id

    @property
    def page(self) -> str:
        """The table of runs; for a database, the command that shows it comes first."""
        return self._store.page_of(self._run_id)

    def log_config(self, config: Mapping[str, Any]) -> None:
        """Each value of the config as a parameter, and all of it as config.json."""

        def write() -> None:
            # A parameter cannot be changed: what a resumed run was given differently stays as it was.
            known = self._store.client.get_run(self._run_id).data.params
            values = {allowed_name(key)[:_MAX_KEY_LENGTH]: value for key, value in _leaves(config)}
            params = [Param(key, value[:_MAX_PARAM_LENGTH]) for key, value in values.items() if key not in known]
            for start in range(0, len(params), _PARAMS_PER_CALL):
                self._store.client.log_batch(self._run_id, params=params[start : start + _PARAMS_PER_CALL])
            self._store.client.log_text(self._run_id, json.dumps(config, indent=2), "config.json")

        self._try(write)

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Points of curves at a step."""
        now_ms = int(time.time() * 1000)
        points = [Metric(name, float(value), now_ms, step) for name, value in metrics.items()]

        def write() -> None:
            for start in range(0, len(points), _METRICS_PER_CALL):
                batch = points[start : start + _METRICS_PER_CALL]
                operation = self._store.client.log_batch(self._run_id, metrics=batch, synchronous=False)
                self._pending.append(operation)
            while len(self._pending) > _MAX_PENDING:
                self._pending.pop(0).wait()

        self._try(write)

    def log_file(self, path: Path, *, folder: str | None = None) -> None:
        """A file as an artifact, or a folder with all that is in it."""
        log = self._store.client.log_artifacts if path.is_dir() else self._store.client.log_artifact
        self._try(lambda: log(self._run_id, str(path), folder))

    def log_text(self, text: str, *, name: str) -> None:
        """A text file as an artifact."""
        self._try(lambda: self._store.client.log_text(self._run_id, text, name))

    def log_dataset(self, *, split: str, paths: Sequence[str], digest: str, num_rows: int) -> None:
        """The rows of a split, in MLflow's column of data sets."""
        dataset = Dataset(
            name=Path(paths[0]).name[:_MAX_DATASET_NAME],
            digest=digest[:_MAX_DIGEST],
            source_type="local",
            source=json.dumps({"paths": list(paths)})[:_MAX_PARAM_LENGTH],
            profile=json.dumps({"num_rows": num_rows}),
        )
        tags = [InputTag("mlflow.data.context", split)]
        self._try(lambda: self._store.client.log_inputs(self._run_id, [DatasetInput(dataset, tags)]))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Facts to find the run by."""
        self._try(lambda: self._store.client.log_batch(self._run_id, tags=[RunTag(k, v) for k, v in tags.items()]))

    def finish(self, status: Status = "finished") -> None:
        """Write out what waits and close the run."""

        def write() -> None:
            while self._pending:
                self._pending.pop().wait()
            if self._monitor is not None:
                self._monitor.finish()
            self._store.client.set_terminated(self._run_id, _STATUS[status])

        self._try(write)

    def _try(self, write: Callable[[], object]) -> None:
        """Do it, or warn once: a store that fails must not take hours of training with it."""
        try:
            write()
        except (MlflowException, SQLAlchemyError, OSError) as error:
            if not self._has_warned:
                _logger.warning(
                    "MLflow at %s failed: %s; the run goes on, and its folder still gets everything",
                    self._store.shown,
                    reason_of(error),
                )
            self._has_warned = True


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The values of a config by key path; lists and empty sections as JSON."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)
