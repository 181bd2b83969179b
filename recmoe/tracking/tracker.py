"""Tracker: what a run tells whoever records it; TrackingConfig says who that is."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import PositiveFloat, field_serializer

from recmoe.config import Config
from recmoe.tracking.names import name_fault, without_password

Status = Literal["finished", "failed", "killed"]


class Tracker(Protocol):
    """One run, as it is recorded.

    Recording never stops a run: what cannot be written after the start is warned about once.
    """

    @property
    def run_id(self) -> str | None:
        """Names the run to whoever goes on with it; None where nothing is recorded."""
        ...

    @property
    def page(self) -> str | None:
        """Where a person looks at the run; None where nothing is recorded."""
        ...

    def log_config(self, config: Mapping[str, Any]) -> None:
        """The resolved config: each value by its key path, and the whole as config.json."""
        ...

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Points of curves, by names such as ``train/loss`` or those of ``metric_name``."""
        ...

    def log_file(self, path: Path, *, folder: str | None = None) -> None:
        """A file, or a folder with all that is in it."""
        ...

    def log_text(self, text: str, *, name: str) -> None:
        """A text file of that name, such as ``plan.json``."""
        ...

    def log_dataset(self, *, split: str, paths: Sequence[str], digest: str, num_rows: int) -> None:
        """The rows of a split: where they lie, and what tells them from others."""
        ...

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Facts to find the run by."""
        ...

    def finish(self, status: Status = "finished") -> None:
        """Write out what waits and close the run. Nothing may be logged after it."""
        ...


class NullTracker:
    """Records nothing."""

    run_id: str | None = None
    page: str | None = None

    def log_config(self, config: Mapping[str, Any]) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], *, step: int) -> None: ...

    def log_file(self, path: Path, *, folder: str | None = None) -> None: ...

    def log_text(self, text: str, *, name: str) -> None: ...

    def log_dataset(self, *, split: str, paths: Sequence[str], digest: str, num_rows: int) -> None: ...

    def set_tags(self, tags: Mapping[str, str]) -> None: ...

    def finish(self, status: Status = "finished") -> None: ...


class TrackingConfig(Config):
    """Where a run is recorded."""

    kind: Literal["mlflow", "none"] = "mlflow"
    """In MLflow, or nowhere."""
    uri: str | None = None
    """MLflow tracking URI; by default the environment's MLFLOW_TRACKING_URI, else a SQLite file beside the runs."""
    experiment: str = "recmoe"
    """MLflow experiment that the run belongs to."""
    system_metrics: bool = True
    """Record use of processors, memory, disk and network."""
    timeout_s: PositiveFloat = 10.0
    """Seconds a server may take to answer before the run is refused."""

    @field_serializer("uri")
    def _uri_without_password(self, uri: str | None) -> str | None:
        # The config is written into run folders, bundles and MLflow, which others read.
        return None if uri is None else without_password(uri)

    def problems(self) -> Iterator[tuple[str, str]]:
        if fault := name_fault(self.experiment):
            yield "experiment", f"{self.experiment!r} cannot be the name of an experiment: {fault}"

    def build(self, *, run_name: str, folder: Path, run_id: str | None = None, parent_id: str | None = None) -> Tracker:
        """Start a run, or go on with ``run_id``.

        Args:
            folder: where the SQLite file and the artifacts go if no URI is set.
            parent_id: the run that a new one belongs to.

        Raises:
            RegistryError: the store does not answer, or does not know ``run_id``.
        """
        if self.kind == "none":
            return NullTracker()
        # MLflow takes two seconds to import, and serving must not load it.
        from recmoe.tracking.mlflow_store import MlflowStore
        from recmoe.tracking.mlflow_tracker import MlflowTracker

        store = MlflowStore.connect(self.uri, folder=folder, timeout_s=self.timeout_s)
        return MlflowTracker.start(
            store,
            experiment=self.experiment,
            run_name=run_name,
            run_id=run_id,
            parent_id=parent_id,
            system_metrics=self.system_metrics,
        )


def metric_name(prefix: str, metric: str) -> str:
    """Name that MLflow allows for a metric of a report: ``cvr.auc[click]`` → ``val/cvr/auc.click``."""
    task, _, rest = metric.partition(".")
    name = f"{prefix}/{task}/{rest}" if rest else f"{prefix}/{task}"
    name = name.replace("[", ".").replace("]", "")
    return allowed_name(name)


def allowed_name(name: str) -> str:
    """A name with nothing in it that MLflow refuses; letters of any script stay as they are."""
    return re.sub(r"[^\w\-./ :]", "_", name)
