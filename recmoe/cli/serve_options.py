"""Options of ``recmoe serve``: a flag for each field of ``serving.settings.ServeSettings``, and the file of them.

None is "not given": the defaults are those of the settings.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

SettingsFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="YAML file of settings, called as the flags are: max_values: 5000."),
]
Host = Annotated[str | None, typer.Option(help="Address to listen on; 0.0.0.0 for all.", show_default="127.0.0.1")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default="8000")]
GrpcPort = Annotated[
    int | None, typer.Option(help="Port for KServe's protocol over gRPC, 0 for a free one; none by default.")
]
Workers = Annotated[int | None, typer.Option(help="Processes that share the port.", show_default="1")]
Replicas = Annotated[
    int | None,
    typer.Option(help="Serve by at least that many replicas on Ray Serve instead; RAY_ADDRESS names a cluster."),
]
MaxReplicas = Annotated[
    int | None, typer.Option(help="Replicas at most, by what there is to do; as many as --replicas by default.")
]
TargetRequests = Annotated[
    float | None,
    typer.Option(help="Requests in hand per replica, above which there are more; two per ranking thread by default."),
]
Threads = Annotated[
    int | None,
    typer.Option(help="Threads per worker that rank, a request each.", show_default="usable cores / workers"),
]
Queue = Annotated[int | None, typer.Option(help="Requests that may wait per worker; more get 429.", show_default="128")]
DeadlineMs = Annotated[
    float | None, typer.Option(help="Time for an answer, unless X-Deadline-Ms says otherwise.", show_default="5000")
]
Late = Annotated[
    Literal["refuse", "light"] | None,
    typer.Option(
        help="What would be late is refused, or ranked by the alias light where that is in time.", show_default="refuse"
    ),
]
MaxBodyBytes = Annotated[int | None, typer.Option(help="Bytes of a request.", show_default="16777216")]
MaxHeldBytes = Annotated[
    int | None, typer.Option(help="Bytes of all requests in hand, per worker.", show_default="268435456")
]
MaxValues = Annotated[int | None, typer.Option(help="Commas and brackets in a request.", show_default="510000")]
MaxConnections = Annotated[int | None, typer.Option(help="Open connections per worker.", show_default="1000")]
HeadS = Annotated[float | None, typer.Option(help="Time for a request's head to arrive.", show_default="10")]
BodyS = Annotated[float | None, typer.Option(help="Time for a request's body to arrive.", show_default="10")]
ResponseS = Annotated[float | None, typer.Option(help="Time for a client to read an answer.", show_default="30")]
KeepAliveS = Annotated[int | None, typer.Option(help="Time that a connection may be idle.", show_default="75")]
DrainDelayS = Annotated[
    float | None, typer.Option(help="Time to go on accepting connections after SIGTERM.", show_default="0")
]
DrainS = Annotated[float | None, typer.Option(help="Time for requests under way after SIGTERM.", show_default="10")]
TokenFile = Annotated[
    Path | None, typer.Option(help="Bearer tokens, one a line; requests need one, /healthz and /readyz do not.")
]
Certificate = Annotated[Path | None, typer.Option(help="TLS certificate with its chain (PEM).")]
CertificateKey = Annotated[Path | None, typer.Option(help="The certificate's private key (PEM).")]
WatchS = Annotated[
    float | None, typer.Option(help="Time between two looks at what the registry's alias names.", show_default="10")
]
WebhookSecretFile = Annotated[
    Path | None, typer.Option(help="Secret of MLflow's webhook, which then may call /v1/models/webhook.")
]
LiveRequests = Annotated[
    int | None, typer.Option(help="Last requests that a new version must answer, per worker.", show_default="100")
]
LiveBytes = Annotated[int | None, typer.Option(help="Bytes of these at most.", show_default="16777216")]
ChallengerShare = Annotated[
    float | None, typer.Option(help="Share of the users whom the alias challenger answers.", show_default="0")
]
SplitBy = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column of a request's user that names the user; the model's only id of a user by default.",
    ),
]
ShadowShare = Annotated[
    float | None, typer.Option(help="Share of requests that the alias shadow ranks too.", show_default="0")
]
Precision = Annotated[
    Literal["fp32", "bf16"] | None,
    typer.Option(help="Type of matrix products; bf16 is faster where the processor has it.", show_default="fp32"),
]
Device = Annotated[
    str | None, typer.Option(help="Where candidates are ranked: cpu, cuda or cuda:N.", show_default="cpu")
]
BatchCandidates = Annotated[
    int | None,
    typer.Option(
        help="Candidates of waiting requests ranked together at most; 8192 on a GPU, 0 on the CPU by default."
    ),
]
Items = Annotated[
    str | None,
    typer.Option(
        metavar="STORE",
        help="Items made by recmoe items build: a folder, or redis://HOST/DB; requests may leave out their columns.",
    ),
]
ItemsKnownBytes = Annotated[
    int | None,
    typer.Option(
        help="Bytes per worker for products of the first items, computed once; 0 for none.", show_default="268435456"
    ),
]
MaxExplained = Annotated[
    int | None, typer.Option(help="Items of a request that are explained at most; 0 for none.", show_default="20")
]
Users = Annotated[
    str | None, typer.Option(metavar="STORE", help="Users made by recmoe users build, their histories among them.")
]
StoreWatchS = Annotated[
    float | None, typer.Option(help="Time between two looks for a new store of items or users.", show_default="10")
]
StoreTimeoutMs = Annotated[float | None, typer.Option(help="Time for an answer from Redis.", show_default="100")]
StoreCacheBytes = Annotated[
    int | None,
    typer.Option(help="Bytes per worker of rows of each store in Redis that are kept.", show_default="67108864"),
]
StoreCacheS = Annotated[float | None, typer.Option(help="Time that they are kept.", show_default="60")]
StoreAway = Annotated[
    Literal["refuse", "unknown"] | None,
    typer.Option(
        help="While Redis does not answer: refuse requests, or rank items and users as unknown.", show_default="refuse"
    ),
]
StrictFields = Annotated[
    bool | None,
    typer.Option(
        "--strict-fields/--ignore-fields",
        help="Whether fields that the model does not know are refused; they are ignored with a warning by default.",
    ),
]
LogFormat = Annotated[
    Literal["text", "json"] | None, typer.Option(help="Text, or a JSON object per line.", show_default="text")
]
LogSlowerThanMs = Annotated[
    float | None, typer.Option(help="Log requests that take longer, with their stages, one a second; none by default.")
]
OtlpEndpoint = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="OpenTelemetry collector that takes spans over HTTP; OTEL_EXPORTER_OTLP_ENDPOINT by default.",
    ),
]
CalibrationBand = Annotated[
    float | None,
    typer.Option(help="Factor by which mean predictions may differ from expected ones; 0 for any.", show_default="2"),
]
CalibrationWindowS = Annotated[float | None, typer.Option(help="Time that a mean is taken over.", show_default="600")]
CalibrationCandidates = Annotated[
    int | None, typer.Option(help="Candidates that a mean is taken of at least.", show_default="10000")
]
ExpectedRates = Annotated[
    str | None,
    typer.Option(
        metavar="RATES",
        help="Mean predictions to expect: ctr=0.03,cvr=0.2, or training for those of the test split, or baseline for "
        "those of the first six windows.",
        show_default="baseline",
    ),
]
