"""What a server that is ready tells, and what a parent and its workers tell each other."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from pydantic import BaseModel

from serving.settings import ServeSettings

if TYPE_CHECKING:
    from recmoe.ranking.ranker import Ranker

SHARED_METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable: folder in which the workers of one server count; prometheus_client reads it at import."""


class ReadyModel(BaseModel):
    """Which model it is, and what it took to be ready."""

    source: str
    """Where this very model comes from: a version, where the server was asked for an alias."""
    name: str
    version: str | None
    digest: str
    loading_s: float
    """Seconds for loading and the replay."""
    start_s: float
    """Seconds since the process began, imports and all."""
    port: int

    @classmethod
    def of(cls, ranker: "Ranker", *, source: str, loading_s: float, port: int) -> "ReadyModel":
        """The model of a ranker that was loaded from a source by this process."""
        info = ranker.info
        pinned = f"models:/{info.name}/{info.version}" if info.version is not None else source
        return cls(
            source=pinned,
            name=info.name,
            version=info.version,
            digest=info.digest,
            loading_s=loading_s,
            start_s=time.time() - psutil.Process().create_time(),
            port=port,
        )


class WorkerOrder(BaseModel):
    """What a worker is told."""

    source: str
    runs: Path
    settings: ServeSettings
    listener: int
    """Number of the socket's file; the parent and the other workers have it open too."""
    reports: int
    """Number of the pipe's file for a WorkerReport a line."""
    digest: str | None = None
    """Of the model that the others serve; None for the first worker."""


class WorkerReport(BaseModel):
    """What a worker tells."""

    ready: ReadyModel | None = None
    error: str | None = None
