"""What a server that is ready tells, and what a parent and its workers tell each other."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from pydantic import BaseModel

from serving.calibration.moments import ServedPredictions
from serving.calibration.watch import TaskCalibration
from serving.models.refusal import Refusal, Role
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
    grpc_port: int | None = None
    fetched: str = ""
    """What came from an artifact store for it, in words; empty where nothing did."""

    @classmethod
    def of(
        cls,
        ranker: "Ranker",
        *,
        source: str,
        loading_s: float = 0.0,
        port: int,
        grpc_port: int | None = None,
        fetched: str = "",
    ) -> "ReadyModel":
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
            grpc_port=grpc_port,
            fetched=fetched,
        )


@dataclass(frozen=True)
class ModelEvents:
    """What is called when something becomes of the models."""

    ready: Callable[[ReadyModel], None] = lambda _: None
    swapped: Callable[[ReadyModel], None] = lambda _: None
    """There is another champion."""
    refused: Callable[[Refusal], None] = lambda _: None
    forgiven: Callable[[Role], None] = lambda _: None
    """Of this role nothing is refused any more."""
    asked: Callable[[], None] = lambda: None
    """The registry's webhook was called."""
    served: Callable[[ServedPredictions], None] | None = None
    """The champion has predicted something; None where the process watches its predictions itself."""


class WorkerOrder(BaseModel):
    """What a worker is told."""

    source: str
    runs: Path
    settings: ServeSettings
    listener: int
    """Number of the socket's file; the parent and the other workers have it open too."""
    reports: int
    """Number of the pipe's file for a WorkerReport a line."""
    model: ReadyModel | None = None
    """What the others serve; None for the first worker."""
    refused: list[Refusal] = []
    """What the others have refused."""


class WorkerReport(BaseModel):
    """What a worker tells, one of these."""

    ready: ReadyModel | None = None
    swapped: ReadyModel | None = None
    """It has another champion now."""
    refused: Refusal | None = None
    forgiven: Role | None = None
    """Of this role it refuses nothing any more."""
    asked: bool = False
    """It was asked to look at what the aliases name."""
    served: ServedPredictions | None = None
    error: str | None = None


class WorkerCommand(BaseModel):
    """What a worker is told later."""

    looks: bool = False
    """Whether it looks at what the aliases name at once."""
    retries: bool = False
    """Whether it then tries again what was refused."""
    refuses: Refusal | None = None
    """What another worker has refused."""
    calibration: list[TaskCalibration] | None = None
    """What is known of the champion's tasks, from the predictions of all."""
