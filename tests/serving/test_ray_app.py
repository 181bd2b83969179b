"""``recmoe serve --replicas``: the same answers by replicas on Ray Serve, which agree on their models and come and go.

One Ray for the file: it takes most of the time.
"""

import importlib
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
import ray
import torch
import tritonclient.http as triton
import yaml

from recmoe.client import RankClient
from recmoe.errors import ConfigError, ServingError, StackError
from recmoe.features.encoder import FeatureEncoder
from recmoe.products import fast_products
from serving import ray_app, ray_server
from serving.app import create_app
from serving.settings import ServeSettings
from tests.serving.models.clients import Clients
from tests.serving.models.versions import REQUEST, Versions
from tests.serving.models.webhook_calls import BODY, SECRET, signed

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

ROOT = Path(__file__).parent.parent.parent
CONFIG = ROOT / "configs" / "serving" / "ray_serve.yaml"
Ask = Callable[..., Any]
Serve = Callable[..., AbstractContextManager[str]]
WATCH_S = 8.0
"""Long enough that what comes sooner comes of the webhook."""


class Cluster:
    """``recmoe serve --replicas 2`` as a process of its own, and the registry that it follows."""

    def __init__(self, url: str, process: Any, versions: Versions, settings: ServeSettings, ask: Ask) -> None:
        self.url, self.process, self.versions, self.settings, self._ask = url, process, versions, settings, ask

    def processes(self) -> list[psutil.Process]:
        """All of Ray's."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def replicas(self) -> list[psutil.Process]:
        return [one for one in self.processes() if "ray::ServeReplica" in " ".join(one.cmdline())]

    def metric(self, name: str, **labels: str) -> dict[str, float]:
        """The sum of samples with these labels, for each replica that has any."""
        found: dict[str, float] = {}
        for line in self._ask(f"{self.url}/metrics").text.splitlines():
            if line.startswith(f"{name}{{") and all(f'{label}="{value}"' in line for label, value in labels.items()):
                replica = line.partition('replica="')[2].partition('"')[0]
                found[replica] = found.get(replica, 0) + float(line.rpartition(" ")[2])
        return found

    def serves(self, version: str) -> bool:
        """Whether both replicas have this version and no other one."""
        used = self.metric("recmoe_model_info", version=version)
        return self.metric("recmoe_model_info") == used == dict.fromkeys(used, 1.0) and len(used) == 2


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory,
    _empty_database: Path,
    make_bundle: Callable[..., Path],
    shop_encoder: FeatureEncoder,
    shop_config: dict[str, Any],
    servers_in: Callable[[Path], AbstractContextManager[Any]],
    ask: Ask,
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "runs").mkdir()
    shutil.copy(_empty_database, folder / "runs")
    (folder / "secret").write_text(SECRET)
    with pytest.MonkeyPatch.context() as patch, servers_in(folder) as start:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("RAY_ADDRESS", raising=False)
        # A process that has imported Ray without a token finds no way into a cluster with one.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        versions = Versions.of_the_shop(
            folder / "runs", folder, make_bundle=make_bundle, encoder=shop_encoder, config=shop_config
        )
        given = {
            "queue": 4,
            "deadline_ms": 60_000,
            "max_body_bytes": 200_000,
            "watch_s": WATCH_S,
            "webhook_secret_file": folder / "secret",
        }
        (folder / "serve.yaml").write_text("".join(f"{name}: {value}\n" for name, value in given.items()))
        server = start("models:/shop@champion", "--replicas", "2", "--config", "serve.yaml")
        settings = ServeSettings.model_validate({**given, "threads": 1})
        yield Cluster(server.url, server.process, versions, settings, ask)
        # The processes of Ray end with it only if it ends by itself.
        server.process.terminate()
        server.process.wait(timeout=60)


@pytest.fixture(scope="module")
def single(cluster: Cluster, serve_app: Serve) -> Iterator[str]:
    """Where a single process serves the same."""
    with (
        fast_products(torch.device("cpu")),
        serve_app(create_app(cluster.versions.rankers["1"], cluster.settings)) as url,
    ):
        yield url


MANY = {
    "user": {"user_id": "u3", "age": 40},
    "candidates": {"item_id": list(range(100, 5100)), "price": [number / 7 for number in range(5000)]},
}


def seconds_until(is_so: Callable[[], bool]) -> float:
    start_s = time.monotonic()
    while not is_so():
        assert time.monotonic() < start_s + 120
        time.sleep(0.2)
    return time.monotonic() - start_s


def ranked(document: dict[str, Any]) -> dict[str, Any]:
    """An answer without the times."""
    return {name: value for name, value in document.items() if name != "timing_ms"}


@pytest.mark.cluster
def test_answers_of_all_replicas_are_those_of_one_process(cluster: Cluster, single: str, ask: Ask) -> None:
    items = pa.table({"item_id": range(90, 140), "price": [number / 7 for number in range(50)]})
    inputs = [triton.InferInput("user_id", [1], "BYTES"), triton.InferInput("item_id", [50], "INT64")]
    inputs[0].set_data_from_numpy(np.array(["u3"], object))
    inputs[1].set_data_from_numpy(np.arange(90, 140))

    def by_arrow(url: str) -> pa.Table:
        with RankClient(url) as client:
            return client.rank_table(items, user={"user_id": "u3", "age": 40})

    def by_tensors(url: str, name: str) -> list[float]:
        with triton.InferenceServerClient(url.removeprefix("http://")) as client:
            found: list[float] = client.infer("shop", inputs).as_numpy(name).tolist()
        return found

    before = cluster.metric("recmoe_rank_requests_total", code="200")
    expected = ranked(ask(f"{single}/v1/rank", REQUEST).document)
    answers = [ask(f"{cluster.url}/v1/rank", REQUEST) for _ in range(20)]

    assert [(answer.status, ranked(answer.document)) for answer in answers] == [(200, expected)] * 20
    assert expected["model"]["version"] == "1"
    assert by_arrow(cluster.url).equals(by_arrow(single))
    for name in ("ctr", "ctcvr", "score", "order"):
        assert by_tensors(cluster.url, name) == by_tensors(single, name)
    counts = cluster.metric("recmoe_rank_requests_total", code="200")
    answered = {replica: count - before.get(replica, 0) for replica, count in counts.items()}
    assert len(answered) == 2
    assert min(answered.values()) > 0
    assert sum(answered.values()) == 25


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/v1/rank", b"{", {}, 422),
        ("/v1/rank", b'{"candidates": [{"item_id": 1, "price": "much"}]}', {}, 422),
        ("/v1/rank", b" " * 200_001, {}, 413),
        ("/v1/rank", b"{}", {"X-Deadline-Ms": "soon"}, 422),
        ("/v1/rank", b"{}", {"Content-Encoding": "gzip"}, 415),
        ("/v1/rank", b"x", {"Content-Type": "application/vnd.apache.arrow.stream"}, 422),
        ("/v1/rank", None, {}, 405),
        ("/v1/models/webhook", BODY, {}, 401),
        ("/v2/models/shop/infer", b"{}", {}, 400),
        ("/v2/models/shop/versions/7/infer", b"{}", {}, 404),
        ("/absent", None, {}, 404),
    ],
)
def test_wrong_request_gets_the_answer_of_one_process(
    cluster: Cluster, single: str, ask: Ask, path: str, body: bytes | None, headers: dict[str, str], status: int
) -> None:
    answer, expected = (ask(f"{url}{path}", body, headers) for url in (cluster.url, single))

    assert (answer.status, answer.kind, answer.document) == (status, expected.kind, expected.document)
    assert "detail" in answer.document or "error" in answer.document


@pytest.mark.cluster
def test_what_the_queues_do_not_hold_is_refused_as_by_one_process(cluster: Cluster, ask: Ask) -> None:
    before = sum(cluster.metric("recmoe_refused_total", reason="queue_full").values())

    with ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(lambda _: ask(f"{cluster.url}/v1/rank", MANY), range(60)))

    refused = [answer for answer in answers if answer.status != 200]
    assert 0 < len(refused) < 60
    for answer in refused:
        assert (answer.status, answer.kind) == (429, "application/problem+json")
        assert re.fullmatch(r"\d+ requests wait already; try again later", answer.document["detail"])
        assert int(answer.headers["Retry-After"]) >= 1
    assert sum(cluster.metric("recmoe_refused_total", reason="queue_full").values()) == before + len(refused)


@pytest.mark.cluster
def test_replicas_follow_the_alias_agree_on_what_they_refuse_and_are_replaced(cluster: Cluster, ask: Ask) -> None:
    versions = cluster.versions
    (versions.bundle(versions.add()) / "dense.safetensors").write_bytes(b"")

    def promoted(version: str) -> None:
        versions.registry.promote("shop", version)
        assert ask(f"{cluster.url}/v1/models/webhook", BODY, signed()).status == 202

    with Clients(cluster.url, [REQUEST]) as clients:
        promoted("2")
        by_webhook_s = seconds_until(lambda: cluster.serves("2"))
        promoted("3")
        seconds_until(lambda: len(cluster.metric("recmoe_model_refused", version="3")) == 2)
        before = set(cluster.metric("recmoe_workers"))
        cluster.replicas()[0].send_signal(signal.SIGKILL)
        seconds_until(lambda: len(cluster.metric("recmoe_workers").keys() - before) == 1)
        # The new one has begun with what the other one serves, for the alias names what that one has refused.
        assert cluster.serves("2")
        assert cluster.metric("recmoe_model_refused", version="3").keys() == cluster.metric("recmoe_workers").keys()
        versions.registry.promote("shop", "1")
        seconds_until(lambda: cluster.serves("1"))

    assert by_webhook_s < WATCH_S * 0.75
    expected = {version: versions.scores(version) for version in ("1", "2")}
    assert clients.versions.keys() == expected.keys()
    for _, answer in clients.answers:
        assert [item["score"] for item in answer["items"]] == pytest.approx(
            expected[answer["model"]["version"]], abs=1e-5
        )
    # Each client has one request under way when a replica is killed.
    assert len(clients.faults) <= clients.count
    assert clients.lost == []


@pytest.fixture
def connected(cluster: Cluster) -> Iterator[None]:
    """This process is another client of that Ray."""
    (raylet,) = [one for one in cluster.processes() if one.name() == "raylet"]
    (address,) = [word.partition("=")[2] for word in raylet.cmdline() if word.startswith("--gcs-address=")]
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.mark.cluster
@pytest.mark.usefixtures("connected")
def test_what_cannot_run_next_to_it_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="Ray Serve runs on this cluster already; add the application to its config"):
        ray_server.serve_on_ray(str(tmp_path), ServeSettings(port=0, replicas=1), session=nullcontext())

    app = ray_app.ranking_app(str(tmp_path), runs=tmp_path, settings=ServeSettings(replicas=1))
    with pytest.raises(ServingError, match=f"^{tmp_path} is no bundle: it has no manifest.json"):
        ray_server.run_app(ray_app.ray_serve(), app, name="other", route_prefix="/other")
    ray_app.ray_serve().delete("other")


@pytest.mark.cluster
def test_stop_leaves_nothing_running(cluster: Cluster) -> None:
    processes = cluster.processes()

    cluster.process.send_signal(signal.SIGTERM)

    assert len(processes) > 5
    assert cluster.process.wait(timeout=60) == 0
    assert cluster.process.stdout.readline() == "by 2 replicas on Ray\n"
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert alive == []


def test_config_file_is_valid_for_ray_and_for_the_application() -> None:
    schema = importlib.import_module(f"{ray_app.ray_serve().__name__}.schema").ServeDeploySchema

    (described,) = schema.model_validate(yaml.safe_load(CONFIG.read_text())).applications
    module, _, name = described.import_path.partition(":")
    app = getattr(importlib.import_module(module), name)(described.args)
    (overridden,) = described.deployments
    deployment = app._bound_deployment
    assert deployment.name == overridden.name
    assert overridden.autoscaling_config["max_replicas"] == 8
    assert deployment.max_ongoing_requests > described.args["settings"]["queue"] + overridden.ray_actor_options.num_cpus


def test_settings_decide_on_replicas(tmp_path: Path) -> None:
    settings = ServeSettings(replicas=2, max_replicas=8, threads=3, queue=10, drain_s=20, target_requests=5)

    deployment = ray_app.ranking_app(str(tmp_path), runs=tmp_path, settings=settings)._bound_deployment

    config = deployment._deployment_config
    autoscaling = config.autoscaling_config
    assert (autoscaling.min_replicas, autoscaling.max_replicas, autoscaling.target_ongoing_requests) == (2, 8, 5)
    assert deployment.ray_actor_options["num_cpus"] == 3
    assert config.graceful_shutdown_timeout_s == 20


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ({"model": "models:/shop@champion"}, ConfigError, "args  runs: field required"),
        (
            {"model": "models:/shop@champion", "runs": "/runs", "settings": {"quue": 3}},
            ConfigError,
            r"args  settings.quue: unknown key, did you mean queue\?",
        ),
        ({"model": "models:/shop@champion", "runs": "runs"}, ServingError, "^runs: runs is not an absolute path"),
        ({"model": "bundles/shop", "runs": "/runs"}, ServingError, "^model: bundles/shop is not an absolute path"),
        (
            {"model": "models:/shop@champion", "runs": "/runs", "settings": {"items": "items"}},
            ServingError,
            "^items: items is not an absolute path; replicas run in another folder",
        ),
        *(
            ({"model": "/bundles/shop", "runs": "/runs", "settings": {name: 1}}, ServingError, f"^{name} is not for")
            for name in ("workers", "grpc_port", "head_s", "response_s", "max_connections", "drain_delay_s")
        ),
        (
            {"model": "/bundles/shop", "runs": "/runs", "settings": {"port": 80}},
            ServingError,
            "^port is not for replicas of a config file: its http_options decide",
        ),
    ],
)
def test_argument_that_replicas_cannot_have_is_named(
    args: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ray_app.application(args)


def test_port_that_is_taken_is_named_before_ray_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServingError, match=f"port {port} on 127.0.0.1 cannot be used"):
            ray_server.serve_on_ray(
                str(tmp_path), ServeSettings(port=port, replicas=1), session=nullcontext(), runs=tmp_path
            )


def test_ray_serve_that_is_not_there_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(StackError, match=r"replicas need Ray Serve \(.*\); pip install 'recmoe\[cluster\]'"):
        ray_app.ray_serve()
