"""The ranking API answers as the ranker does, and says what is wrong as problem+json."""

import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recmoe.errors import BundleError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker, RankRequest
from recmoe.ranking.items import ArrowStore
from serving.app import create_app
from serving.models.holder import ServedModels
from serving.settings import ServeSettings

with warnings.catch_warnings():
    # Starlette would rather have a package that is still to be written for.
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

REQUEST: dict[str, Any] = {
    "request_id": "r1",
    "user": {"user_id": "u3", "age": 40},
    "context": {"hour": 12},
    "candidates": [{"item_id": 101, "price": 3.5}, {"item_id": 102}, {"item_id": 999, "price": 1}],
    "top_k": 2,
}


@pytest.fixture
def client(ranker: Ranker) -> Iterator[TestClient]:
    with TestClient(
        create_app(ranker, ServeSettings(max_body_bytes=10_000, deadline_ms=60_000)), raise_server_exceptions=False
    ) as client:
        yield client


def test_ranking_over_http_equals_the_ranker(client: TestClient, ranker: Ranker) -> None:
    response = client.post("/v1/rank", json=REQUEST)

    expected = ranker.rank(RankRequest.parse(REQUEST)).model_dump(exclude={"timing_ms"})
    answer = response.json()
    assert response.status_code == 200
    assert answer.pop("timing_ms")["total"] > 0
    assert answer == expected
    assert answer["model"]["version"] == "4"
    assert {"feature": "item_id", "code": "unknown", "count": 1} in answer["warnings"]


@pytest.mark.parametrize(
    ("body", "status", "field", "detail"),
    [
        (b"{", 422, "body", "body: is not JSON"),
        (b'{"candidates": []}', 422, "candidates", "candidates: there are none"),
        (
            b'{"candidates": [{"item_id": 1, "price": NaN}]}',
            422,
            "candidates[0].price",
            "candidates[0].price: expected a finite number, found NaN",
        ),
        (b'{"candidates": [{"item_id": 1}], "score": "x"}', 422, "score", "score: unknown score x"),
        (b" " * 10_001, 413, None, "the request has more than 10000 bytes; send fewer candidates at once"),
    ],
)
def test_wrong_request_is_a_problem_that_names_the_field(
    client: TestClient, body: bytes, status: int, field: str | None, detail: str
) -> None:
    response = client.post("/v1/rank", content=body)

    problem = response.json()
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem.get("field") == field
    assert problem["detail"].startswith(detail)


def test_body_of_unannounced_length_is_cut_off(client: TestClient) -> None:
    response = client.post("/v1/rank", content=(b" " * 1000 for _ in range(20)))

    assert response.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v3/rank", 404), ("GET", "/v1/rank", 405), ("POST", "/healthz", 405)]
)
def test_unknown_path_or_method_is_a_problem(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == f"{method} {path}: see /docs for what there is"


def test_models_tell_what_a_request_may_hold(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()

    assert (model["name"], model["version"], model["default_score"]) == ("shop", "4", "profit")
    assert model["tasks"][1] == {"name": "cvr", "kind": "binary", "space": "click"}
    assert model["scores"]["profit"] == "ctcvr * 12 - 0.1 * ctr"
    assert model["columns"]["context"] == {"hour": "double"}


def test_metrics_count_requests_candidates_and_warnings(client: TestClient) -> None:
    client.post("/v1/rank", json=REQUEST)
    client.post("/v1/rank", json={})

    page = client.get("/metrics").text

    assert 'recmoe_rank_requests_total{code="200",model="shop",version="4"} 1.0' in page
    assert 'recmoe_rank_requests_total{code="422",model="shop",version="4"} 1.0' in page
    assert "recmoe_rank_candidates_sum 3.0" in page
    assert 'recmoe_feature_oov_total{feature="item_id"} 1.0' in page
    assert 'recmoe_feature_missing_total{feature="price"} 1.0' in page
    assert 'recmoe_rank_latency_seconds_count{stage="model"} 1.0' in page
    assert 'recmoe_score_count{task="ctr"} 3.0' in page
    assert 'recmoe_model_info{digest="' in page
    assert "recmoe_model_age_seconds" in page


def test_openapi_page_describes_request_and_response(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    operation = document["paths"]["/v1/rank"]["post"]
    request = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(request["properties"]) >= {"user", "context", "candidates", "tasks", "score", "top_k"}
    assert "RankResponse" in document["components"]["schemas"]
    assert client.get("/docs").status_code == 200


def test_server_is_ready_once_the_model_is_loaded(ranker: Ranker) -> None:
    may_go_on, is_ready = threading.Event(), threading.Event()

    def load() -> Ranker:
        may_go_on.wait(10)
        return ranker

    holder = ServedModels(load, on_ready=lambda _: is_ready.set())
    with TestClient(create_app(holder)) as client:
        before = [client.get(path) for path in ("/healthz", "/readyz", "/v1/models")]
        ranked = client.post("/v1/rank", json=REQUEST)
        may_go_on.set()
        is_ready.wait(10)
        while holder.ranker is None:
            pass
        after = client.get("/readyz")

    assert [response.status_code for response in before] == [200, 503, 503]
    assert ranked.status_code == 503
    assert ranked.headers["retry-after"] == "1"
    assert "the model is being loaded and replayed" in before[1].json()["detail"]
    assert after.status_code == 200


def test_server_whose_model_does_not_pass_is_never_ready() -> None:
    has_failed = threading.Event()

    def load() -> Ranker:
        raise BundleError("replay: task cvr differs")

    holder = ServedModels(load, on_failure=has_failed.set)
    with TestClient(create_app(holder)) as client:
        has_failed.wait(10)
        response = client.get("/readyz")

    assert response.status_code == 503
    assert response.json()["detail"] == "no model: replay: task cvr differs"
    assert isinstance(holder.error, BundleError)


def test_fault_of_the_server_is_a_problem_without_its_inside(bundle: ModelBundle) -> None:
    app = create_app(Ranker(bundle))
    app.get("/fault")(lambda: 1 / 0)

    response = TestClient(app, raise_server_exceptions=False).get("/fault")

    assert response.status_code == 500
    assert response.json()["detail"] == "the server failed; its log says why"


def test_importing_the_app_loads_no_ray_no_mlflow_and_no_training() -> None:
    code = (
        "import sys, serving.app, serving.server\n"
        "sys.exit(', '.join({'ray', 'mlflow', 'torchrec', 'recmoe.training'} & set(sys.modules)) or 0)"
    )

    finished = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

    assert finished.returncode == 0, finished.stderr


def test_items_are_looked_up_and_counted(bundle: ModelBundle, tmp_path: Path) -> None:
    items = pa.table({"item_id": [101, 102], "price": [3.5, 4.0], "words": [["red"], ["silk"]]})
    store = ArrowStore.build(tmp_path / "items", items, bundle.encoder)
    ranker = Ranker.load(bundle, items=store, items_known_bytes=2**20)

    with TestClient(create_app(ranker)) as client:
        answer = client.post("/v1/rank", json={**REQUEST, "candidates": {"item_id": [101, 102, 7]}}).json()
        page = client.get("/metrics").text

    assert {"feature": "item_id", "code": "not_in_store", "count": 1} in answer["warnings"]
    assert 'recmoe_items_lookups_total{outcome="hit"} 2.0' in page
    assert 'recmoe_items_lookups_total{outcome="miss"} 1.0' in page
    assert "\nrecmoe_items 2.0" in page
    assert "\nrecmoe_items_known 2.0" in page
    age_s = float(re.findall(r"\nrecmoe_items_age_seconds (\S+)", page)[0])
    assert 0 < age_s < 600
