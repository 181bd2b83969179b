"""``recmoe serve`` and ``recmoe rank``: the ranking API, and the same without a server."""

import logging
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import recmoe.cli.serve_options as flags
from recmoe.cli.options import Json, Model, ModelOption, RegistryUri, Score, StrictFields
from recmoe.cli.output import print_columns
from recmoe.errors import RecmoeError
from recmoe.runs.source import load_ranker

if TYPE_CHECKING:
    from recmoe.client.explanation import Explanation
    from recmoe.ranking.request import FeatureWarning
    from serving.orders import ReadyModel
    from serving.settings import ServeSettings


def serve(
    model: Model,
    config: flags.SettingsFile = None,
    host: flags.Host = None,
    port: flags.Port = None,
    grpc_port: flags.GrpcPort = None,
    workers: flags.Workers = None,
    replicas: flags.Replicas = None,
    max_replicas: flags.MaxReplicas = None,
    target_requests: flags.TargetRequests = None,
    threads: flags.Threads = None,
    queue: flags.Queue = None,
    deadline_ms: flags.DeadlineMs = None,
    late: flags.Late = None,
    max_body_bytes: flags.MaxBodyBytes = None,
    max_held_bytes: flags.MaxHeldBytes = None,
    max_values: flags.MaxValues = None,
    max_connections: flags.MaxConnections = None,
    head_s: flags.HeadS = None,
    body_s: flags.BodyS = None,
    response_s: flags.ResponseS = None,
    keep_alive_s: flags.KeepAliveS = None,
    drain_delay_s: flags.DrainDelayS = None,
    drain_s: flags.DrainS = None,
    token_file: flags.TokenFile = None,
    certificate: flags.Certificate = None,
    key: flags.CertificateKey = None,
    registry: RegistryUri = None,
    watch_s: flags.WatchS = None,
    webhook_secret_file: flags.WebhookSecretFile = None,
    live_requests: flags.LiveRequests = None,
    live_bytes: flags.LiveBytes = None,
    challenger_share: flags.ChallengerShare = None,
    split_by: flags.SplitBy = None,
    shadow_share: flags.ShadowShare = None,
    precision: flags.Precision = None,
    device: flags.Device = None,
    batch_candidates: flags.BatchCandidates = None,
    items: flags.Items = None,
    items_known_bytes: flags.ItemsKnownBytes = None,
    max_explained: flags.MaxExplained = None,
    users: flags.Users = None,
    store_watch_s: flags.StoreWatchS = None,
    store_timeout_ms: flags.StoreTimeoutMs = None,
    store_cache_bytes: flags.StoreCacheBytes = None,
    store_cache_s: flags.StoreCacheS = None,
    store_away: flags.StoreAway = None,
    strict_fields: flags.StrictFields = None,
    log_format: flags.LogFormat = None,
    log_slower_than_ms: flags.LogSlowerThanMs = None,
    otlp_endpoint: flags.OtlpEndpoint = None,
    calibration_band: flags.CalibrationBand = None,
    calibration_window_s: flags.CalibrationWindowS = None,
    calibration_candidates: flags.CalibrationCandidates = None,
    expected_rates: flags.ExpectedRates = None,
) -> None:
    """Answer ranking requests over HTTP until Ctrl-C: POST /v1/rank, /v2 (KServe), /readyz, /metrics, /docs."""
    _serve(model, config, locals())


def _serve(model: str, config: Path | None, flags_given: Mapping[str, object]) -> None:
    from serving.settings import read_settings

    others = ("model", "config")
    given = {name: value for name, value in flags_given.items() if name not in others and value is not None}
    settings = read_settings(config, given)
    (_serve_here if settings.replicas is None else _serve_on_ray)(model, settings)


def _serve_here(model: str, settings: "ServeSettings") -> None:
    """Serve, and tell what becomes of it: as text on stdout, or as JSON in the log."""
    from serving.observability.logs import logging_as
    from serving.server import serve as run_server

    logger = logging.getLogger("serving")
    is_json = settings.log_format == "json"
    tell = logger.info if is_json else partial(print, flush=True)

    def on_ready(ready: "ReadyModel") -> None:
        tell(_address(ready, settings))
        if ready.grpc_port is not None:
            tell(f"and over gRPC on {settings.host}:{ready.grpc_port}")
        tell(f"ready after {ready.start_s:.1f} s, {ready.loading_s:.1f} s of them for the model")
        if ready.fetched:
            tell(f"fetched {ready.fetched}")

    def on_swap(ready: "ReadyModel") -> None:
        fetched = f", fetched {ready.fetched}" if ready.fetched else ""
        tell(f"serving {ready.name} version {ready.version} from now on{fetched}")

    with logging_as(settings.log_format):
        try:
            run_server(model, settings, on_ready=on_ready, on_swap=on_swap)
        except RecmoeError as error:
            if not is_json:
                raise
            logger.error("%s", error)
            raise typer.Exit(1) from error


def _serve_on_ray(model: str, settings: "ServeSettings") -> None:
    from pipelines.ray_session import ray_session
    from serving.ray_server import serve_on_ray

    def on_ready(ready: "ReadyModel") -> None:
        print(_address(ready, settings), flush=True)
        most = f" to {settings.most_replicas}" if settings.most_replicas != settings.replicas else ""
        print(f"by {settings.replicas}{most} replicas on Ray", flush=True)

    session = ray_session(num_workers=settings.most_replicas * (settings.threads or 1))
    serve_on_ray(model, settings, session=session, on_ready=on_ready)


def _address(ready: "ReadyModel", settings: "ServeSettings") -> str:
    version = f" version {ready.version}" if ready.version else ""
    where = f"{'https' if settings.certificate else 'http'}://{settings.host}:{ready.port}"
    return f"serving {ready.name}{version} on {where}, API page at /docs"


def rank(
    request: Annotated[Path, typer.Argument(metavar="REQUEST.json", help="Body of POST /v1/rank; - reads stdin.")],
    model: ModelOption,
    score: Score = None,
    registry: RegistryUri = None,
    strict_fields: StrictFields = False,
    items: flags.Items = None,
    users: flags.Users = None,
    device: flags.Device = None,
    as_json: Json = False,
) -> None:
    """Order the candidates of one request, without a server."""
    from recmoe.errors import RequestError
    from recmoe.ranking.request import RankRequest

    try:
        body = sys.stdin.buffer.read() if str(request) == "-" else request.read_bytes()
    except OSError as error:
        raise RequestError("body", f"cannot read {request}: {error.strerror}") from error
    parsed = RankRequest.parse(body)
    if score is not None:
        parsed = parsed.model_copy(update={"score": score})
    ranker = load_ranker(
        model, registry_uri=registry, strict_fields=strict_fields, device=device or "cpu", items=items, users=users
    )
    response = ranker.rank(parsed)
    if as_json:
        print(response.model_dump_json(indent=2))
        return
    tasks = list(response.items[0].tasks)
    rows = [
        (place, str(item.item_id), "–" if item.score is None else item.score, *(item.tasks[task] for task in tasks))
        for place, item in enumerate(response.items, start=1)
    ]
    # A task may be called as one of the other columns is.
    taken = ("place", "item", "score")
    print_columns([*taken, *(f"task {task}" if task in taken else task for task in tasks)], rows)
    for item in response.items:
        if item.explanation is not None:
            print(f"\n{item.item_id}:", *_explained(item.explanation), sep="\n  ")
    version = f" version {response.model.version}" if response.model.version else ""
    print(f"\n{response.model.name}{version}, score {response.score.name} = {response.score.formula}")
    for warning in response.warnings:
        print(f"warning: {_told(warning)}", file=sys.stderr)


def _explained(explanation: "Explanation") -> list[str]:
    """A line per task and gate."""
    lines = []
    for name, task in explanation.tasks.items():
        moves = [*((one.feature, one.value) for one in task.features), ("others", task.others)]
        sums = ", ".join(f"{feature} {value:+.3f}" for feature, value in moves)
        lines.append(f"{name}: {task.unit} {task.predicted:.3f} = {task.base:.3f}, {sums}")
    for gate in explanation.gates:
        weights = ", ".join(f"{expert} {weight:.3f}" for expert, weight in gate.weights.items())
        lines.append(f"level {gate.level}, gate {gate.gate}: {weights}")
    return lines


def _told(warning: "FeatureWarning") -> str:
    from recmoe.features.columns import shown_names

    if warning.code == "unknown_field":
        hint = f"; {warning.hint}" if warning.hint else ""
        return f"{shown_names([warning.feature])}: the model does not know this field, it is ignored{hint}"
    field = f" (field {warning.column!r})" if warning.column is not None else ""
    return f"{warning.feature}{field}: {warning.count} {warning.code.replace('_', ' ')}"
