"""``recmoe serve`` and ``recmoe rank``: the ranking API, and the same without a server."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recmoe.cli.options import Json, Model, RegistryUri, Score, StrictFields
from recmoe.cli.output import print_columns
from recmoe.runs.source import load_ranker

if TYPE_CHECKING:
    from recmoe.ranking.request import FeatureWarning


def serve(
    model: Model,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML file of settings, called as the flags are: max_values: 5000."),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 0.0.0.0 for all.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default="8000")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the port.", show_default="1")] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Threads per worker that rank, a request each.", show_default="usable cores / workers"),
    ] = None,
    queue: Annotated[
        int | None, typer.Option(help="Requests that may wait per worker; more get 429.", show_default="128")
    ] = None,
    deadline_ms: Annotated[
        float | None, typer.Option(help="Time for an answer, unless X-Deadline-Ms says otherwise.", show_default="1000")
    ] = None,
    max_body_bytes: Annotated[int | None, typer.Option(help="Bytes of a request.", show_default="16777216")] = None,
    max_values: Annotated[
        int | None, typer.Option(help="Commas and brackets in a request.", show_default="500000")
    ] = None,
    max_connections: Annotated[
        int | None, typer.Option(help="Open connections per worker.", show_default="1000")
    ] = None,
    head_s: Annotated[
        float | None, typer.Option(help="Time for a request's head to arrive.", show_default="10")
    ] = None,
    body_s: Annotated[
        float | None, typer.Option(help="Time for a request's body to arrive.", show_default="10")
    ] = None,
    response_s: Annotated[
        float | None, typer.Option(help="Time for a client to read an answer.", show_default="30")
    ] = None,
    keep_alive_s: Annotated[
        int | None, typer.Option(help="Time that a connection may be idle.", show_default="75")
    ] = None,
    drain_delay_s: Annotated[
        float | None, typer.Option(help="Time to go on accepting connections after SIGTERM.", show_default="0")
    ] = None,
    drain_s: Annotated[
        float | None, typer.Option(help="Time for requests under way after SIGTERM.", show_default="10")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="Bearer tokens, one a line; requests need one, /healthz and /readyz do not.")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="TLS certificate with its chain (PEM).")] = None,
    key: Annotated[Path | None, typer.Option(help="The certificate's private key (PEM).")] = None,
    registry: RegistryUri = None,
    strict_fields: Annotated[
        bool | None,
        typer.Option(
            "--strict-fields/--ignore-fields",
            help="Whether fields that the model does not know are refused; they are ignored with a warning by default.",
        ),
    ] = None,
) -> None:
    """Answer ranking requests over HTTP until Ctrl-C: POST /v1/rank, /readyz, /metrics, /docs.

    Every setting may be a flag, an environment variable such as RECMOE_SERVE_DEADLINE_MS, or a key of the file;
    the first of them that is given holds.
    """
    given = {name: value for name, value in locals().items() if name not in ("model", "config") and value is not None}
    from serving.orders import ReadyModel
    from serving.server import serve as run_server
    from serving.settings import read_settings

    settings = read_settings(config, given)

    def on_ready(ready: ReadyModel) -> None:
        version = f" version {ready.version}" if ready.version else ""
        where = f"{'https' if settings.certificate else 'http'}://{settings.host}:{ready.port}"
        print(f"serving {ready.name}{version} on {where}, API page at /docs", flush=True)
        print(f"ready after {ready.start_s:.1f} s, {ready.loading_s:.1f} s of them for the model", flush=True)

    run_server(model, settings, on_ready=on_ready)


def rank(
    request: Annotated[Path, typer.Argument(metavar="REQUEST.json", help="Body of POST /v1/rank; - reads stdin.")],
    model: Annotated[str, typer.Option(help="models:/NAME@ALIAS, models:/NAME/VERSION, a run folder or a bundle.")],
    score: Score = None,
    registry: RegistryUri = None,
    strict_fields: StrictFields = False,
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
    response = load_ranker(model, registry_uri=registry, strict_fields=strict_fields).rank(parsed)
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
    version = f" version {response.model.version}" if response.model.version else ""
    print(f"\n{response.model.name}{version}, score {response.score.name} = {response.score.formula}")
    for warning in response.warnings:
        print(f"warning: {_told(warning)}", file=sys.stderr)


def _told(warning: "FeatureWarning") -> str:
    from recmoe.features.columns import shown_names

    if warning.code == "unknown_field":
        hint = f"; {warning.hint}" if warning.hint else ""
        return f"{shown_names([warning.feature])}: the model does not know this field, it is ignored{hint}"
    field = f" (field {warning.column!r})" if warning.column is not None else ""
    return f"{warning.feature}{field}: {warning.count} {warning.code.replace('_', ' ')}"
