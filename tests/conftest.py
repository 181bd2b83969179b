"""Fixtures of several packages: a small log of a shop, and a bundle of a model over it."""

import shutil
import socket
import subprocess
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import TypeAdapter

from recmoe.config import config_from_dict
from recmoe.embeddings.tables import PlainTables
from recmoe.evaluation.report import MetricRow, Report
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle, write_bundle
from recmoe.export.replay import Replay
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.schema import FeatureSchema
from recmoe.growth.earlier import WarmStart
from recmoe.model import ModelConfig, MultiTaskRanker, build_model
from recmoe.runs.folder import RunFolder
from recmoe.runs.origin import Origin
from recmoe.runs.train import RunResult, train_run
from recmoe.runs.worker import run_worker
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.training.runtime import start_runtime
from tests.large_shop import large_bundle

BundleMaker = Callable[..., Path]
ExperimentMaker = Callable[..., ExperimentConfig]
Event = Callable[[int, Mapping[str, float]], None]
Train = Callable[..., RunResult]
WriteModel = Callable[[Path, dict[str, Any], pa.Table], Path]

SHOP_CONFIG: dict[str, Any] = {
    "name": "shop",
    "seed": 3,
    "inputs": {
        "width": 4,
        "group": "visit",
        "item": "item_id",
        "features": {
            "user_id": {"kind": "id", "side": "user"},
            "tags": {"kind": "id_list", "side": "user", "pooling": "sum"},
            "age": {"kind": "numeric", "side": "user", "forms": ["value", "bucket", "vector"]},
            "hour": {"kind": "numeric", "side": "context"},
            "item_id": {"kind": "id", "side": "item"},
            "words": {"kind": "id_list", "side": "item", "table": "tags", "pooling": "sum"},
            "price": {"kind": "numeric", "side": "item", "log1p": True, "forms": ["value", "vector"]},
        },
    },
    "tasks": {
        "ctr": {"kind": "binary", "label": "click"},
        "cvr": {"kind": "binary", "label": "purchase", "space": "click"},
        "ctcvr": {"kind": "product", "of": ["ctr", "cvr"]},
    },
    "model": {
        "architecture": {"kind": "mmoe", "num_experts": 3, "expert_hidden": [8]},
        "towers": {"hidden": [4]},
    },
    "ranking": {"scores": {"profit": "ctcvr * 12 - 0.1 * ctr"}},
}


@pytest.fixture(autouse=True)
def _same_products_for_all() -> Iterator[None]:
    """No test leaves a library of matrix products behind: scores of the tests after it would round otherwise."""
    before = torch.get_float32_matmul_precision()
    yield
    assert torch.get_float32_matmul_precision() == before


@pytest.fixture(scope="session")
def shop_log() -> pa.Table:
    """200 impressions with every kind of column, some values missing."""
    random = np.random.default_rng(0)
    num_rows = 200
    words = np.array(["red", "blue", "wool", "silk", "new"])

    def lists() -> list[list[str] | None]:
        return [
            None if random.random() < 0.1 else list(random.choice(words, random.integers(0, 4), replace=False))
            for _ in range(num_rows)
        ]

    click = random.integers(0, 2, num_rows)
    return pa.table(
        {
            "visit": pa.array(np.repeat(np.arange(40), 5)),
            "user_id": pa.array([f"u{i}" for i in random.integers(0, 20, num_rows)]),
            "tags": pa.array(lists(), pa.list_(pa.string())),
            "age": pa.array(random.integers(18, 70, num_rows), mask=random.random(num_rows) < 0.1),
            "hour": pa.array(random.integers(0, 24, num_rows)),
            "item_id": pa.array(random.integers(100, 130, num_rows)),
            "words": pa.array(lists(), pa.list_(pa.string())),
            "price": pa.array(random.gamma(2.0, 10.0, num_rows)),
            "click": pa.array(click),
            "purchase": pa.array(click * random.integers(0, 2, num_rows)),
        }
    )


@pytest.fixture(scope="session")
def shop_config() -> dict[str, Any]:
    """The sections of a config that make a model over the log."""
    return SHOP_CONFIG


@pytest.fixture(scope="session")
def make_experiment(shop_log: pa.Table) -> ExperimentMaker:
    """Writes the log's splits to a folder and makes a small experiment of them; arguments are overrides."""

    def make(folder: Path, *overrides: str) -> ExperimentConfig:
        splits = {"train": shop_log, "validation": shop_log.slice(0, 80), "test": shop_log.slice(80)}
        for name, rows in splits.items():
            if not (folder / f"{name}.parquet").exists():
                pq.write_table(rows, folder / f"{name}.parquet", row_group_size=60)
        values = {
            **SHOP_CONFIG,
            "data": {name: str(folder / f"{name}.parquet") for name in splits},
            "tables": {"backend": "plain", "optimizer": {"kind": "rowwise_adagrad", "lr": 0.1}},
            "training": {
                "batch_size": 8,
                "device": "cpu",
                "precision": "fp32",
                "dense_optimizer": {"kind": "adamw", "lr": 0.01},
            },
            "evaluation": {"num_resamples": 0, "baselines": []},
            "tracking": {"kind": "none"},
        }
        return config_from_dict(ExperimentConfig, values, overrides=overrides)

    return make


class FolderWithEvents(RunFolder):
    """Something happens while a line of the curves is written."""

    def __init__(self, root: Path, event: Event) -> None:
        super().__init__(root)
        self.event = event

    def log(self, step: int, values: Mapping[str, float]) -> None:
        super().log(step, values)
        self.event(step, values)


def nothing(step: int, values: Mapping[str, float]) -> None:
    """What happens in an undisturbed run."""


@pytest.fixture(scope="session")
def train() -> Train:
    """``train_run`` on one thread of this process; ``event`` sees every line of the curves."""

    def run(
        config: ExperimentConfig,
        root: Path,
        *,
        resume: bool = False,
        event: Event = nothing,
        warm_start: WarmStart | None = None,
        origin: Origin | None = None,
        is_strict: bool = False,
    ) -> RunResult:
        def launch(config: ExperimentConfig, folder: RunFolder) -> None:
            runtime = start_runtime(device="cpu")
            torch.set_num_threads(1)
            run_worker(config, FolderWithEvents(folder.root, event), runtime=runtime)

        return train_run(
            config,
            root,
            resume=resume,
            launch=launch,
            is_quiet=True,
            warm_start=warm_start,
            origin=origin,
            is_strict=is_strict,
        )

    return run


@pytest.fixture(scope="session")
def shop_encoder(shop_log: pa.Table) -> FeatureEncoder:
    """Fitted on the log."""
    schema = FeatureSchema.model_validate(SHOP_CONFIG["inputs"])
    return FeatureEncoder.fit(schema, [shop_log], TaskSet(_tasks()).label_columns)


@pytest.fixture(scope="session")
def shop_model(shop_encoder: FeatureEncoder) -> MultiTaskRanker:
    """Untrained, with tables large enough to matter."""
    torch.manual_seed(3)
    layout = shop_encoder.layout
    return build_model(
        layout=layout,
        tasks=TaskSet(_tasks()),
        config=ModelConfig.model_validate(SHOP_CONFIG["model"]),
        tables=lambda rows: PlainTables(rows, seed=3, init_std=1.0),
    ).eval()


@pytest.fixture(scope="session")
def make_bundle(shop_log: pa.Table, shop_encoder: FeatureEncoder, shop_model: MultiTaskRanker) -> BundleMaker:
    """Writes a bundle of the model to a path; keyword arguments are those of ``write_bundle``."""

    def make(path: Path, **changes: Any) -> Path:
        rows = shop_log.slice(0, 40)
        model = changes.get("model", shop_model)
        with torch.inference_mode():
            predictions_NT = model.predict(shop_encoder.encode(rows, with_labels=False)).numpy()
        replay = Replay.capture(rows, encoder=shop_encoder, task_names=model.tasks.names, predictions_NT=predictions_NT)
        parts: dict[str, Any] = {
            "name": "shop",
            "config": SHOP_CONFIG,
            "encoder": shop_encoder,
            "model": model,
            "replay": replay,
            "report": Report(
                rows=(MetricRow("cvr", "click", "auc", None, 0.75, None, None, 100, 50),),
                num_rows=200,
                num_resamples=0,
            ),
        }
        write_bundle(path, **{**parts, **changes})
        return path

    return make


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory, make_bundle: BundleMaker) -> Path:
    """A bundle that no test changes."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "shop")


@pytest.fixture(scope="session")
def write_model() -> WriteModel:
    """Writes the bundle of a model that has learned nothing but its log's ids, and is named after its folder."""

    def write(path: Path, config: dict[str, Any], log: pa.Table) -> Path:
        tasks = TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(config["tasks"]))
        encoder = FeatureEncoder.fit(FeatureSchema.model_validate(config["inputs"]), [log], tasks.label_columns)
        torch.manual_seed(3)
        model = build_model(
            layout=encoder.layout,
            tasks=tasks,
            config=ModelConfig.model_validate(config["model"]),
            tables=lambda layout: PlainTables(layout, seed=3, init_std=1.0),
        ).eval()
        with torch.inference_mode():
            predictions_NT = model.predict(encoder.encode(log, with_labels=False)).numpy()
        replay = Replay.capture(log, encoder=encoder, task_names=tasks.names, predictions_NT=predictions_NT)
        write_bundle(path, name=path.name, config=config, encoder=encoder, model=model, replay=replay, report=None)
        return path

    return write


@pytest.fixture(scope="session")
def score_bundle_path(
    tmp_path_factory: pytest.TempPathFactory, make_bundle: BundleMaker, shop_encoder: FeatureEncoder
) -> Path:
    """A bundle with a task that is named like its label, ``click``, and one that is called ``score``."""
    tasks = {"click": {"kind": "binary", "label": "click"}, "score": {"kind": "binary", "label": "purchase"}}
    model = build_model(
        layout=shop_encoder.layout,
        tasks=TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(tasks)),
        config=ModelConfig.model_validate(SHOP_CONFIG["model"]),
        tables=lambda rows: PlainTables(rows, seed=3, init_std=1.0),
    ).eval()
    config = {**SHOP_CONFIG, "tasks": tasks, "ranking": {"scores": {"gain": "click * score"}}}
    return make_bundle(tmp_path_factory.mktemp("score") / "shop", config=config, model=model, report=None)


@pytest.fixture(scope="session")
def bundle(bundle_path: Path) -> ModelBundle:
    """The same, loaded."""
    return ModelBundle.load(bundle_path)


@pytest.fixture(scope="session")
def _empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to make its tables; one time is enough."""
    from recmoe.tracking.mlflow_store import MlflowStore

    folder = tmp_path_factory.mktemp("empty")
    with warnings.catch_warnings(action="ignore"):
        MlflowStore.connect(f"sqlite:///{folder}/mlflow.db", folder=folder)
    return folder / "mlflow.db"


@pytest.fixture
def mlflow_folder(_empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an empty MLflow database; no other store is named by the environment."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copy(_empty_database, folder)
    return folder


def _tasks() -> dict[str, Any]:
    return TypeAdapter(dict[str, TaskConfig]).validate_python(SHOP_CONFIG["tasks"])


@dataclass
class RedisServer:
    """A Redis server of a test's own, on a port of its own."""

    folder: Path
    port: int
    options: Sequence[str] = ()
    process: "subprocess.Popen[bytes] | None" = None

    def url(self, prefix: str = "recmoe") -> str:
        return f"redis://127.0.0.1:{self.port}/0?prefix={prefix}"

    def start(self) -> None:
        """And wait until it answers; what it has written before is there again."""
        given = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--appendonly", "yes"]
        command = ["redis-server", *given, "--save", "", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for _ in range(1000):
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    connection.sendall(b"PING\r\n")
                    # With a password, it says that it wants one.
                    if connection.recv(8).startswith((b"+PONG", b"-NOAUTH")):
                        return
            except OSError:
                pass
            assert self.process.poll() is None
            time.sleep(0.01)
        pytest.fail("redis-server did not start")

    def kill(self) -> None:
        """At once, without a farewell."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def make_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RedisServer]]:
    """Starts Redis servers; the test is skipped where there is no such program."""
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server; apt-get install redis-server")
    servers = []

    def make(*options: str) -> RedisServer:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        servers.append(RedisServer(tmp_path_factory.mktemp("redis"), port, options))
        servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def redis_of_all(make_redis: Callable[..., RedisServer]) -> RedisServer:
    """Stays; tests take a prefix of their own."""
    return make_redis()


@pytest.fixture
def redis_url(redis_of_all: RedisServer) -> str:
    """Of a part of a database that no other test uses."""
    return redis_of_all.url(prefix=uuid.uuid4().hex)


@pytest.fixture(scope="session")
def large_bundle_path(tmp_path_factory: pytest.TempPathFactory, shop_log: pa.Table) -> Path:
    """A bundle that is nearly all tables."""
    return large_bundle(tmp_path_factory.mktemp("large") / "shop", SHOP_CONFIG, shop_log)
