"""One list of candidates, every way to its scores: they are equal, and bit by bit where one computation makes them."""

# C candidates, T tasks

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton
from numpy.typing import NDArray
from typer.testing import CliRunner

from recmoe.cli import app
from recmoe.client import RankClient
from recmoe.ranking import Ranker, RankRequest
from recmoe.registry.registry import Registry
from serving.app import create_app
from serving.settings import ServeSettings
from tests.notebooks.scoring import scored_by_the_notebook

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

TASKS = ["ctr", "cvr", "ctcvr"]
NUM_CANDIDATES = 60
Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def rows(shop_log: pa.Table) -> pa.Table:
    """Candidates of one user, as rows of a log; each item stands there once."""
    items = shop_log.select(["item_id", "words", "price"]).slice(0, NUM_CANDIDATES)
    items = items.set_column(0, "item_id", pa.array(range(90, 90 + NUM_CANDIDATES)))
    shared = {"user_id": "u3", "tags": ["wool", "silk"], "age": 40, "hour": 12}
    for name, value in shared.items():
        items = items.append_column(name, pa.array([value] * NUM_CANDIDATES, shop_log.schema.field(name).type))
    return items


@pytest.fixture(scope="module")
def grpc_address(serve_app: Any, ranker: Ranker) -> Iterator[str]:
    app = create_app(ranker, ServeSettings(grpc_port=0))
    with serve_app(app):
        yield f"127.0.0.1:{app.state.grpc_port}"


@pytest.fixture(scope="module")
def document(rows: pa.Table) -> dict[str, Any]:
    """The same as a request."""
    first = rows.slice(0, 1).to_pylist()[0]
    return {
        "user": {name: first[name] for name in ("user_id", "tags", "age")},
        "context": {"hour": first["hour"]},
        "candidates": rows.select(["item_id", "words", "price"]).to_pylist(),
    }


def predictions(document: dict[str, Any], items: list[Any]) -> Floats:
    """Predictions and score of ranked items (JSON objects), in the order of the candidates."""
    found = {item["item_id"]: [*(item["tasks"][task] for task in TASKS), item["score"]] for item in items}
    return np.array([found[candidate["item_id"]] for candidate in document["candidates"]])


def by_arrow(url: str, document: dict[str, Any], rows: pa.Table) -> Floats:
    with RankClient(url) as client:
        table = client.rank_table(
            rows.select(["item_id", "words", "price"]), user=document["user"], context=document["context"]
        )
    items = [
        {"item_id": row["item_id"], "score": row["score"], "tasks": {task: row[task] for task in TASKS}}
        for row in table.to_pylist()
    ]
    return predictions(document, items)


def tensors(document: dict[str, Any], rows: pa.Table, make: Callable[[str, list[int], str], Any]) -> list[Any]:
    """The inputs of a client of Triton's."""
    words = [row["words"] or [] for row in document["candidates"]]
    given = {
        "user_id": np.array(["u3"], object),
        "tags": np.array([["wool", "silk"]], object),
        "age": np.array([40]),
        "hour": np.array([12], np.int32),
        "item_id": rows.column("item_id").to_numpy(),
        "price": rows.column("price").to_numpy(),
        "words": np.array(list(chain.from_iterable(words)), object),
        "words:lengths": np.array([len(one) for one in words]),
    }
    datatypes = {"O": "BYTES", "l": "INT64", "i": "INT32", "d": "FP64"}
    inputs = []
    for name, values in given.items():
        inputs.append(make(name, list(values.shape), datatypes[values.dtype.char]))
        inputs[-1].set_data_from_numpy(values)
    return inputs


def by_grpc(address: str, document: dict[str, Any], rows: pa.Table) -> Floats:
    with triton_grpc.InferenceServerClient(address) as client:
        result = client.infer("shop", tensors(document, rows, triton_grpc.InferInput))
    return np.stack([result.as_numpy(name).astype(np.float64) for name in [*TASKS, "score"]], axis=1)


def by_tensors(url: str, document: dict[str, Any], rows: pa.Table, *, binary: bool) -> Floats:
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in [*TASKS, "score"]]
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        result = client.infer("shop", tensors(document, rows, triton.InferInput), outputs=wanted)
    return np.stack([result.as_numpy(name).astype(np.float64) for name in [*TASKS, "score"]], axis=1)


def by_files(bundle_path: Path, rows: pa.Table, folder: Path) -> Floats:
    pq.write_table(rows, folder / "rows.parquet")
    result = CliRunner().invoke(
        app, ["predict", str(bundle_path), "--data", str(folder / "rows.parquet"), "--to", str(folder / "p.parquet")]
    )
    assert result.exit_code == 0, result.output
    return np.stack([pq.read_table(folder / "p.parquet").column(name).to_numpy() for name in [*TASKS, "score"]], axis=1)


def by_mlflow(bundle_path: Path, rows: pa.Table, folder: Path) -> Floats:
    registry = Registry.connect(folder=folder)
    registry.register(bundle_path)
    mlflow.set_tracking_uri(registry.uri)
    predicted = mlflow.pyfunc.load_model("models:/shop/1").predict(rows.to_pandas())
    found: Floats = predicted[[*TASKS, "score"]].to_numpy(np.float64)
    return found


def by_notebook(bundle_path: Path, rows: pa.Table, folder: Path) -> Floats:
    """Predictions alone: what an analyst looks at has no score."""
    labels = pa.array([number % 2 for number in range(NUM_CANDIDATES)])
    labelled = rows.append_column("click", labels).append_column("purchase", labels)
    labelled = labelled.append_column("visit", pa.array([0] * NUM_CANDIDATES))
    pq.write_table(labelled, folder / "labelled.parquet")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RECMOE_MODEL", str(bundle_path))
        environment.setenv("RECMOE_RUNS", str(folder))
        scored = scored_by_the_notebook(files=[str(folder / "labelled.parquet")])
    assert scored.task_names == tuple(TASKS)
    return scored.predictions_NT.astype(np.float64)


@pytest.fixture
def trained_bundle_path(make_bundle: Callable[..., Path], make_experiment: Callable[..., Any], tmp_path: Path) -> Path:
    """The same model as a run leaves it: with all of its config."""
    config = make_experiment(tmp_path).model_dump(mode="json")
    return make_bundle(tmp_path / "trained", config=config)


def test_every_way_to_a_score_gives_the_same(
    ask: Any,
    url: str,
    grpc_address: str,
    ranker: Ranker,
    document: dict[str, Any],
    rows: pa.Table,
    bundle_path: Path,
    trained_bundle_path: Path,
    tmp_path: Path,
    mlflow_folder: Path,
) -> None:
    whole = RankRequest.parse(document)
    singles = [RankRequest.parse({**document, "candidates": [one]}) for one in document["candidates"]]

    expected = predictions(document, ranker.rank(whole).model_dump()["items"])
    same_way = {
        "JSON": predictions(document, ask(f"{url}/v1/rank", document).document["items"]),
        "Arrow": by_arrow(url, document, rows),
        "KServe, JSON": by_tensors(url, document, rows, binary=False),
        "KServe, binary": by_tensors(url, document, rows, binary=True),
        "KServe, gRPC": by_grpc(grpc_address, document, rows),
    }
    other_ways = {
        "one by one": predictions(document, [ranker.rank(one).model_dump()["items"][0] for one in singles]),
        "rank_many": predictions(document, [one.model_dump()["items"][0] for one in ranker.rank_many(singles)]),
        "Ranker.score": np.column_stack([ranker.score(rows), ranker.combine(ranker.score(rows))]),
        "recmoe predict": by_files(bundle_path, rows, tmp_path),
        "mlflow.pyfunc": by_mlflow(bundle_path, rows, mlflow_folder),
        "notebook": by_notebook(trained_bundle_path, rows, tmp_path),
    }

    assert expected.std(axis=0).min() > 1e-4
    assert {way: np.array_equal(found, expected) for way, found in same_way.items()} == dict.fromkeys(same_way, True)
    differences = {way: float(np.abs(found - expected[:, : found.shape[1]]).max()) for way, found in other_ways.items()}
    assert {way: difference < 1e-5 for way, difference in differences.items()} == dict.fromkeys(other_ways, True)
