"""ray_app: the ranking API as an application of Ray Serve: replicas of one app, on the nodes of a cluster.

A replica is a process with the app of ``recmoe serve``. It loads its model, proves it and follows its alias by itself.
Ray's proxies take the connections and hand each request to the less busy of two replicas. Ray replaces replicas that
die, and starts and stops them by the number of requests in hand. What a worker learns from its parent, a replica learns
from the others: with which version to begin, what they refuse, and that the registry's webhook was called.
"""

import asyncio
import logging
import queue
import sys
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI
from prometheus_client import Metric

from recmoe.config import Config, config_from_dict
from recmoe.errors import ServingError, StackError
from recmoe.products import fast_products
from serving.metrics import ServingMetrics, page_of
from serving.model_app import SWITCH_S, ModelApp
from serving.models.refusal import Refusal
from serving.models.source import ModelSource
from serving.orders import ModelEvents, ReadyModel, WorkerCommand
from serving.settings import ServeSettings

_logger = logging.getLogger(__name__)

NAME = "ranking"
"""Of the application, and of its deployment, in Ray Serve."""
_BEYOND_QUEUE = 32
"""Requests that a replica takes beyond those that rank or wait: probes, and those that it refuses itself."""
_AT_PROXY = 1000
"""Requests that may wait at a proxy until a replica takes them; more get 429."""
_ANSWER_S = 2.0
"""Seconds for other replicas to answer."""
_HEALTH_S = 2.0
"""Seconds between two health checks; a replica that was killed is noticed by the next."""
_STARTS = 1
"""Times that a first replica may fail: another one would fail too. Once one has started, Ray tries without end."""
_BY_RAY = {
    "workers": "replicas take their place: --replicas",
    "grpc_port": "Ray's proxies do not speak KServe over gRPC; recmoe serve without --replicas does",
    "head_s": "Ray's proxies have no such limit; a load balancer before them has",
    "response_s": "Ray's proxies have no such limit; a load balancer before them has",
    "max_connections": "Ray's proxies have no such limit; a load balancer before them has",
    "drain_delay_s": "Ray's proxies hand no request to a replica that is to stop",
    "log_format": "Ray keeps the logs of replicas; logging_config in a config file of Ray Serve says how",
}
"""Settings that do nothing here, and why."""
_BY_FILE = ("host", "port", "keep_alive_s", "certificate", "key")
"""Settings that a config file of Ray Serve has under http_options."""


class ClusterApp(Config):
    """``args`` of the application in a config file of Ray Serve."""

    model: str
    """``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, or the absolute path of a run or a bundle."""
    runs: Path
    """Folder that all nodes see: the local registry is there, and versions of a remote one are kept there."""
    settings: ServeSettings = ServeSettings()
    """Those of ``recmoe serve``, by the same names."""


@dataclass(frozen=True)
class Standing:
    """What a replica serves and refuses, as it tells one that is started."""

    follows: tuple[object, ...]
    """Alias and registry."""
    model: ReadyModel
    refused: list[Refusal]


class RankingReplica:
    """One replica; its methods are called by Ray Serve and by other replicas.

    Args:
        source: see ``ModelSource``.
        runs: see ``load_ranker``.
        settings: of the server; by default a thread ranks for each core that Ray gives the replica.
    """

    def __init__(self, source: str, runs: Path, settings: ServeSettings) -> None:
        import ray
        from ray import serve

        context = serve.get_replica_context()
        self._id, self._app_name = context.replica_tag, context.app_name
        self._replicas = serve.get_deployment_handle(context.deployment, context.app_name)
        cores = int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))
        settings = settings.model_copy(update={"threads": settings.threads or max(1, cores)})
        self._source = ModelSource(source, runs=runs, settings=settings)
        self._follows = source, runs, settings.registry
        self._commands: queue.SimpleQueue[WorkerCommand] = queue.SimpleQueue()
        self._at_end = ExitStack()

    async def __serve_build_asgi_app__(self) -> FastAPI:
        """The app, once its model is there; Ray calls it after the constructor, and raises what it raises."""
        other = await self._other()
        self._served = ModelApp(
            self._source,
            others=other.model if other is not None else None,
            refused=other.refused if other is not None else (),
            events=ModelEvents(refused=self._refused, asked=self._asked),
            commands=self._commands,
            port=0,
            on_failure=lambda: None,
            metrics_page=self._page,
        )
        models = self._served.models
        sys.setswitchinterval(SWITCH_S)
        # From before the model is loaded until the process ends: its replay is the proof.
        self._at_end.enter_context(fast_products(torch.device("cpu")))
        await asyncio.to_thread(models.load)
        if models.error is not None:
            raise models.error
        self._at_end.callback(self._served.close)
        return self._served.app

    def __del__(self) -> None:
        self._at_end.close()

    def check_health(self) -> None:
        """NotReadyError where the server is not ready; Ray then starts another replica."""
        self._served.models.get_for_new()

    async def standing(self) -> Standing:
        """What this replica serves."""
        models = self._served.models
        return Standing(self._follows, self._served.told(models.get()), list(models.refused.values()))

    async def collected(self) -> tuple[str, list[Metric]]:
        """The name of this replica, and what it has counted."""
        return self._id, self._served.collected()

    async def take(self, sender: str, command: WorkerCommand) -> None:
        """Another replica has something for the watch of the aliases."""
        if sender != self._id:
            self._commands.put(command)

    async def _other(self) -> Standing | None:
        """What a running replica serves that follows the same alias; a version that none of them refuses.

        The alias may name one that all of them refuse: a new replica that asked the registry alone could not start.
        """
        if await asyncio.to_thread(self._source.named_versions) is None or not await asyncio.to_thread(self._has_other):
            return None
        found = [one for one in await self._ask_all("standing") if one.follows == self._follows]
        refused = {one.version for standing in found for one in standing.refused if one.role == "champion"}
        return next((one for one in found if one.model.version not in refused), None)

    def _has_other(self) -> bool:
        """Whether a replica runs; where there is none, a question would wait for its whole time."""
        from ray import serve

        app = serve.status().applications.get(self._app_name)
        return app is not None and any("RUNNING" in one.replica_states for one in app.deployments.values())

    async def _ask_all(self, method: str, *given: object) -> list[Any]:
        """What the replicas answer that answer in time; this one is among them once it runs."""
        try:
            asked = self._replicas.broadcast(method, *given)
            answers = await asked.results_async(timeout_s=_ANSWER_S, return_exceptions=True)
        except Exception as error:
            # Ray has many errors for replicas that have gone or are not there yet; this one goes on without an answer.
            _logger.warning("other replicas could not be asked for %s: %r", method, error)
            return []
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def _page(self, metrics: ServingMetrics) -> bytes:
        """/metrics of any replica speaks for all."""
        others = dict(await self._ask_all("collected"))
        return page_of({**others, self._id: metrics.collected()})

    def _refused(self, refusal: Refusal) -> None:
        """All refuse, or none does. On the thread of the watch."""
        asyncio.run(self._tell(WorkerCommand(refuses=refusal)))

    def _asked(self) -> None:
        """The webhook was called. On the event loop."""
        self._telling = asyncio.create_task(self._tell(WorkerCommand(looks=True)))

    async def _tell(self, command: WorkerCommand) -> None:
        """Tell the others; those that do not hear it find out by themselves, at their next look."""
        await self._ask_all("take", self._id, command)


def application(args: dict[str, Any]) -> Any:
    """The application of a config file of Ray Serve: ``import_path: serving.ray_app:application``.

    Args:
        args: those of ``ClusterApp``.

    Raises:
        ConfigError, ServingError: an argument is wrong.
    """
    given = config_from_dict(ClusterApp, args, source="args")
    for name in _BY_FILE:
        if name in given.settings.model_fields_set:
            raise ServingError(f"{name} is not for replicas of a config file: its http_options decide on connections")
    return ranking_app(given.model, runs=given.runs, settings=given.settings)


def ranking_app(source: str, *, runs: Path, settings: ServeSettings) -> Any:
    """The application of Ray Serve; ``deployments`` of a config file replace what is set here.

    Raises:
        ServingError: a setting is not one of Ray's, or a path is relative.
    """
    serve = ray_serve()
    _check(source, runs, settings)
    threads = settings.threads or 1
    deployment = serve.deployment(
        serve.ingress()(RankingReplica),
        name=NAME,
        ray_actor_options={"num_cpus": threads},
        autoscaling_config={
            "min_replicas": settings.replicas or 1,
            "max_replicas": settings.most_replicas,
            "target_ongoing_requests": settings.target_requests or 2 * threads,
        },
        # More than the app takes on, so that it refuses by itself, in its own words.
        max_ongoing_requests=threads + settings.queue + _BEYOND_QUEUE,
        max_queued_requests=_AT_PROXY,
        backpressure_config={"status_code": 429, "retry_after_s": 1},
        health_check_period_s=_HEALTH_S,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=settings.drain_s,
        max_constructor_retry_count=_STARTS,
    )
    return deployment.bind(source, runs, settings)


def ray_serve() -> Any:
    """Ray Serve; StackError where it is not installed."""
    try:
        # Ray's own use of pydantic is deprecated.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            from ray import serve
    except ImportError as error:
        raise StackError(f"replicas need Ray Serve ({error}); pip install 'recmoe[cluster]'") from error
    return serve


def _check(source: str, runs: Path, settings: ServeSettings) -> None:
    for name, reason in _BY_RAY.items():
        if name in settings.model_fields_set:
            raise ServingError(f"{name} is not for replicas: {reason}")
    of_model = {} if source.startswith("models:") else {"model": Path(source)}
    for name, path in {"runs": runs, **settings.paths, **of_model}.items():
        if not path.is_absolute():
            raise ServingError(f"{name}: {path} is not an absolute path; replicas run in another folder")
