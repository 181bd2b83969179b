"""ServeSettings: what an operator decides about a server; flags, environment and file set the same fields."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from recmoe.config import Config, config_from_dict, load_config
from recmoe.config_source import COMMAND_LINE
from recmoe.errors import DataError
from recmoe.machine import Machine


def _rates(given: object) -> object:
    """``ctr=0.03,cvr=0.2`` as rates by task; what is no such text stays as it is."""
    if not isinstance(given, str) or "=" not in given:
        return given
    return {task.strip(): rate.strip() for task, _, rate in (part.partition("=") for part in given.split(","))}


ExpectedRates = Annotated[dict[str, PositiveFloat] | Literal["training", "baseline"], BeforeValidator(_rates)]


class ServeSettings(Config):
    """How a server listens, how much it takes on, and what it allows a client."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to listen on; 0 takes a free one."""
    grpc_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Port for KServe's protocol over gRPC; 0 takes a free one, none by default."""
    workers: PositiveInt = 1
    """Processes that share the port."""
    replicas: PositiveInt | None = None
    """Replicas on Ray Serve at least, instead of workers on this machine; RAY_ADDRESS names the cluster."""
    max_replicas: PositiveInt | None = None
    """Replicas at most, by what there is to do; by default as many as at least."""
    target_requests: PositiveFloat | None = None
    """Requests in hand per replica; more replicas are started above it. By default two per ranking thread."""
    threads: PositiveInt | None = None
    """Threads per worker that rank, a request each; by default the usable cores, divided among the workers."""
    queue: PositiveInt = 128
    """Requests per worker that may wait for a thread; more are refused with 429."""
    deadline_ms: PositiveFloat = 5000.0
    """Milliseconds from a request's arrival to its answer, unless its header X-Deadline-Ms says otherwise."""
    late: Literal["refuse", "light"] = "refuse"
    """What would be answered after its deadline is refused, or ranked by the model's alias light, where that is in
    time."""
    max_body_bytes: PositiveInt = 16 * 2**20
    """Bytes of a request. 10,000 candidates with forty columns each are about 8 MB of JSON."""
    max_held_bytes: PositiveInt = 256 * 2**20
    """Bytes of all requests that a worker has in hand."""
    max_values: PositiveInt = 510_000
    """Commas and opening brackets in a request, which bound its values: 10,000 candidates of 49 columns, and a user."""
    max_connections: PositiveInt = 1000
    """Open connections per worker."""
    head_s: PositiveFloat = 10.0
    """Seconds that the head of a request may take to arrive."""
    body_s: PositiveFloat = 10.0
    """Seconds that the body of a request may take to arrive."""
    response_s: PositiveFloat = 30.0
    """Seconds that a client may take to read an answer."""
    keep_alive_s: PositiveInt = 75
    """Seconds that a connection may stay idle between requests; longer than those of a load balancer before it."""
    drain_delay_s: NonNegativeFloat = 0.0
    """Seconds that a server which was told to stop still accepts connections, until load balancers know of it."""
    drain_s: PositiveFloat = 10.0
    """Seconds that requests under way then get."""
    token_file: Path | None = None
    """File of bearer tokens, one a line; requests need one of them. Probes do not."""
    certificate: Path | None = None
    """File of the TLS certificate and what signs it (PEM); HTTPS instead of HTTP."""
    key: Path | None = None
    """File of the certificate's private key (PEM)."""
    registry: str | None = None
    """MLflow URI; by default MLFLOW_TRACKING_URI, else runs/mlflow.db."""
    watch_s: PositiveFloat = 10.0
    """Seconds between two looks at the version that the registry's alias names."""
    webhook_secret_file: Path | None = None
    """File with the secret of MLflow's webhook; its signed calls to /v1/models/webhook make the server look at once."""
    live_requests: NonNegativeInt = 100
    """Last requests per worker that a new version must answer before it is used; 0 for none."""
    live_bytes: PositiveInt = 16 * 2**20
    """Bytes of them at most."""
    challenger_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the users whom the model's alias challenger answers, where there is one."""
    split_by: str | None = None
    """Column of a request's user that names the user; by default the only id that the model has of a user."""
    shadow_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the requests that the model's alias shadow ranks too, where there is one, to compare scores."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Type of matrix products; bf16 is faster where the processor has it, and changes predictions by 2 % at most."""
    device: Annotated[str, Field(pattern=r"^(cpu|cuda|cuda:\d+)$")] = "cpu"
    """Where candidates are ranked: cpu, cuda (the first GPU) or cuda:N; a GPU holds the tables of all models in use."""
    batch_candidates: NonNegativeInt | None = None
    """Candidates of waiting requests that are ranked together at most; 0 for each request by itself. By default 8192 on
    a GPU, and 0 on the CPU, where threads side by side are faster."""
    items: str | None = None
    """Store of items, as ``recmoe items build`` makes it: a folder, or redis://HOST:PORT/DB. Requests may leave out the
    columns that it holds."""
    items_known_bytes: NonNegativeInt = 256 * 2**20
    """Bytes, in every worker, for what the first items of the store give in the model's first products, and for what
    they are made of where it is in Redis; 0 for none."""
    max_explained: NonNegativeInt = 20
    """Items of a request that are explained at most, where it asks for that; 0 for none."""
    users: str | None = None
    """Store of users, as ``recmoe users build`` makes it; likewise."""
    store_watch_s: PositiveFloat = 10.0
    """Seconds between two looks whether a store was replaced."""
    store_timeout_ms: PositiveFloat = 100.0
    """Milliseconds that Redis may take for an answer; less than the deadline."""
    store_cache_bytes: NonNegativeInt = 64 * 2**20
    """Bytes, in every worker, of rows of each store in Redis that are kept; 0 for none."""
    store_cache_s: PositiveFloat = 60.0
    """Seconds that they are kept."""
    store_away: Literal["refuse", "unknown"] = "refuse"
    """While Redis does not answer: requests are refused with 503, or their items and users count as unknown."""
    strict_fields: bool = False
    """Whether fields that the model does not know are refused, instead of a warning."""
    log_format: Literal["text", "json"] = "text"
    """How the log looks: text, or a JSON object per line."""
    log_slower_than_ms: NonNegativeFloat | None = None
    """Milliseconds beyond which a request is logged with its stages, one a second at most; none by default."""
    otlp_endpoint: str | None = None
    """Address of an OpenTelemetry collector that takes spans over HTTP; by default OTEL_EXPORTER_OTLP_ENDPOINT."""
    calibration_band: NonNegativeFloat = 2.0
    """Factor by which a task's mean prediction may differ from the expected one before it is warned of; 0 for never."""
    calibration_window_s: PositiveFloat = 600.0
    """Seconds over which it is taken."""
    calibration_candidates: PositiveInt = 10_000
    """Candidates that it is taken of at least."""
    expected_rates: ExpectedRates = "baseline"
    """Mean predictions by task (``ctr=0.03,cvr=0.2``, and the baseline for others), or ``training`` for those of the
    test split, or ``baseline`` for those of the server's first six windows."""

    def problems(self) -> Iterator[tuple[str, str]]:
        if (self.certificate is None) != (self.key is None):
            given, other = ("certificate", "key") if self.key is None else ("key", "certificate")
            yield given, f"needs {other} too: TLS takes the certificate and its private key"

        if self.otlp_endpoint is not None and not self.otlp_endpoint.startswith(("http://", "https://")):
            yield "otlp_endpoint", f"is {self.otlp_endpoint}; give an address such as http://localhost:4318"

        if 0 < self.calibration_band <= 1:
            yield "calibration_band", f"is {self.calibration_band:g}; give a factor above 1, or 0 for no warnings"

        if self.grpc_port and self.grpc_port == self.port:
            yield "grpc_port", f"is the port of HTTP, {self.port}; give another"

        if self.replicas is not None and self.max_replicas is not None and self.max_replicas < self.replicas:
            yield "max_replicas", f"is less than replicas, {self.replicas}"

        for name in ("max_replicas", "target_requests"):
            if self.replicas is None and getattr(self, name) is not None:
                yield name, "needs replicas too, the least that there are"

        if self.device != "cpu":
            if self.workers > 1:
                yield (
                    "workers",
                    f"are {self.workers}, and each would hold the tables on {self.device}: serve by one, whose threads "
                    "share the GPU, or by one server per GPU behind a load balancer",
                )
            if self.replicas is not None:
                yield "replicas", f"rank on the CPU; drop it, or device {self.device}"

        for name, address in self._stores().items():
            if "://" in address:
                yield from self._redis_problems(name, address)

        if self.max_held_bytes < self.max_body_bytes:
            yield "max_held_bytes", f"is less than max_body_bytes, {self.max_body_bytes}: no such request could be read"

    def _stores(self) -> dict[str, str]:
        """Where the stores are that there are, by setting."""
        stores = {"items": self.items, "users": self.users}
        return {name: address for name, address in stores.items() if address is not None}

    def _redis_problems(self, name: str, address: str) -> Iterator[tuple[str, str]]:
        # torch comes with it, and settings are read before the port is taken.
        from recmoe.ranking.items.redis_client import RedisAddress

        try:
            RedisAddress.parse(address)
        except DataError as error:
            yield name, str(error)
        if self.store_timeout_ms >= self.deadline_ms:
            yield "store_timeout_ms", f"is not less than deadline_ms, {self.deadline_ms:g}: no answer would be in time"

    @property
    def paths(self) -> dict[str, Path]:
        """Files and folders that replicas read, by setting."""
        files = {"token_file": self.token_file, "webhook_secret_file": self.webhook_secret_file}
        folders = {name: Path(address) for name, address in self._stores().items() if "://" not in address}
        return {**{name: path for name, path in files.items() if path is not None}, **folders}

    @property
    def shares_cores(self) -> bool:
        """Whether several requests are computed at once on this machine."""
        return self.workers > 1 or self.num_threads() > 1

    @property
    def most_replicas(self) -> int:
        """Replicas that there may be."""
        return self.max_replicas or self.replicas or 1

    def num_threads(self) -> int:
        """Ranking threads of a worker."""
        if self.threads is not None:
            return self.threads
        return max(1, int(Machine.read(Path.cwd()).usable_cores) // self.workers)


def read_settings(file: Path | None, flags: Mapping[str, Any]) -> ServeSettings:
    """Settings of a YAML file, if there is one, and of flags above them.

    Raises:
        ConfigError: everything that is wrong, each with file and line or "command line" and its key.
    """
    if file is None:
        return config_from_dict(ServeSettings, dict(flags), source=COMMAND_LINE)
    return load_config(ServeSettings, file, changes=flags)
