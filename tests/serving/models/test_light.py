"""What would be late is ranked by the light version: the answer is that version's and says why, in every protocol."""

import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from recmoe.errors import RequestError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker, RankRequest
from recmoe.ranking.clock import Clock
from recmoe.ranking.ranked import Ranked
from recmoe.ranking.stages import AnyDecoded
from serving.app import create_app
from serving.models.holder import ServedModels
from serving.models.light import misfit
from serving.models.live import LiveRequests
from serving.models.split import UserSplit
from serving.settings import ServeSettings

ARROW = "application/vnd.apache.arrow.stream"
REQUEST: dict[str, Any] = {"user": {"user_id": "u3", "age": 40}, "candidates": {"item_id": [101, 102], "price": [3, 2]}}
TENSORS = [
    {"name": "user_id", "datatype": "BYTES", "shape": [1], "data": ["u3"]},
    {"name": "item_id", "datatype": "INT64", "shape": [2], "data": [101, 102]},
]
SLOW_S, SOON_S = 2.0, 1.5
SOON, LATER = {"X-Deadline-Ms": "1500"}, {"X-Deadline-Ms": "100000"}
MARK = {"feature": "deadline", "code": "lighter_model", "count": 1}


class Slow(Ranker):
    """Takes its time."""

    def rank_columns(
        self, requests: Sequence[AnyDecoded], *, clock: Clock | None = None
    ) -> list[Ranked | RequestError]:
        time.sleep(SLOW_S)
        return super().rank_columns(requests, clock=clock)

    def score(self, rows: pa.Table) -> NDArray[np.float32]:
        time.sleep(SLOW_S)
        return super().score(rows)


@pytest.fixture(scope="module")
def light(
    tmp_path_factory: pytest.TempPathFactory,
    write_model: Callable[[Path, dict[str, Any], pa.Table], Path],
    shop_config: dict[str, Any],
    shop_log: pa.Table,
) -> Ranker:
    """A model of the same tasks with one expert."""
    model = shop_config["model"]
    config = {**shop_config, "model": {**model, "architecture": {**model["architecture"], "num_experts": 1}}}
    return Ranker.load(write_model(tmp_path_factory.mktemp("light") / "shop", config, shop_log), version="5")


@pytest.fixture(scope="module")
def models(bundle: ModelBundle) -> ServedModels:
    """A slow champion, which is known to be slow once there is a light version."""
    models = ServedModels(
        lambda: Slow(bundle, version="4"),
        live=LiveRequests(max_requests=10, max_bytes=10_000),
        split=UserSplit(share=0.5, column="user_id"),
    )
    models.load()
    return models


@pytest.fixture(scope="module")
def served(models: ServedModels, light: Ranker, bundle: ModelBundle, serve_app: Any) -> Iterator[tuple[str, list[Any]]]:
    """Where they are served, and what was told of predictions to compare with those of training."""
    told: list[Any] = []
    settings = ServeSettings(late="light", threads=2, shadow_share=1.0, calibration_window_s=2.0)
    with serve_app(create_app(models, settings, on_served=told.append)) as url:
        models.use("light", light)
        models.use("challenger", Slow(bundle, version="6"))
        models.use("shadow", Ranker(bundle, version="7"))
        yield url, told


def offline(ranker: Ranker, request: dict[str, Any] = REQUEST) -> list[float | None]:
    return [item.score for item in ranker.rank(RankRequest.parse(request)).items]


def scores(document: Any) -> list[float | None]:
    return [item["score"] for item in document["items"]]


def test_answer_in_json_is_the_light_versions_and_says_why(
    served: tuple[str, list[Any]], light: Ranker, bundle: ModelBundle, ask: Any, number: Any
) -> None:
    url, _ = served
    before = number(ask(f"{url}/metrics").text, "recmoe_rank_lighter_total")

    soon, later = (ask(f"{url}/v1/rank", REQUEST, headers).document for headers in (SOON, LATER))

    assert (soon["model"]["version"], later["model"]["version"] in ("4", "6")) == ("5", True)
    assert soon["model"]["digest"] == light.info.digest
    assert scores(soon) == offline(light)
    assert scores(later) == offline(Ranker(bundle))
    assert MARK in soon["warnings"]
    assert [one for one in later["warnings"] if one["code"] == "lighter_model"] == []
    page = ask(f"{url}/metrics").text
    assert number(page, "recmoe_rank_lighter_total") == before + 1
    assert number(page, 'recmoe_rank_requests_total{code="200",model="shop",version="5"') == before + 1
    assert number(page, 'recmoe_model_info{digest="' + light.info.digest + '",model="shop",role="light"') == 1
    assert ask(f"{url}/readyz").document["light"] == "5"
    assert "light" in [model["role"] for model in ask(f"{url}/v1/models").document]


def test_answer_with_explanations_is_the_light_versions(served: tuple[str, list[Any]], light: Ranker, ask: Any) -> None:
    answer = ask(f"{served[0]}/v1/rank", {**REQUEST, "explain": True}, SOON).document

    gates = [gate for item in answer["items"] for gate in item["explanation"]["gates"]]
    assert (answer["model"]["version"], MARK in answer["warnings"]) == ("5", True)
    assert scores(answer) == offline(light)
    # It has one expert, the champion three.
    assert {len(gate["weights"]) for gate in gates} == {1}


def test_answer_in_arrow_says_so_too(
    served: tuple[str, list[Any]], light: Ranker, ask_bytes: Callable[..., tuple[str, bytes]]
) -> None:
    table = pa.table(REQUEST["candidates"]).replace_schema_metadata({"recmoe": json.dumps({"user": REQUEST["user"]})})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)

    _, body = ask_bytes(
        f"{served[0]}/v1/rank", sink.getvalue().to_pybytes(), {"Content-Type": ARROW, "Accept": ARROW, **SOON}
    )

    answer = pa.ipc.open_stream(body).read_all()
    document = json.loads(answer.schema.metadata[b"recmoe"])
    assert (document["model"]["version"], MARK in document["warnings"]) == ("5", True)
    assert answer["score"].to_pylist() == offline(light)


def test_tensors_are_scored_by_the_light_version_unless_another_one_is_named(
    served: tuple[str, list[Any]], light: Ranker, ask: Any
) -> None:
    url = f"{served[0]}/v2/models/shop"
    body = {"inputs": TENSORS}

    soon = ask(f"{url}/infer", body, SOON)
    named_soon, named = (ask(f"{url}/versions/4/infer", body, headers) for headers in (SOON, LATER))
    light_named = ask(f"{url}/versions/5/infer", body, SOON)

    request = {"user": {"user_id": "u3"}, "candidates": {"item_id": [101, 102]}}
    assert soon.document["model_version"] == "5"
    assert MARK in json.loads(soon.document["parameters"]["warnings"])
    found = {output["name"]: output["data"] for output in soon.document["outputs"]}
    assert sorted(found["score"], reverse=True) == offline(light, request)
    # Late rather than another version's.
    assert named_soon.status == 504
    assert (named.document["model_version"], "lighter_model" in named.text) == ("4", False)
    # Who asks for it by its number gets no other.
    assert (light_named.document["model_version"], "lighter_model" in light_named.text) == ("5", False)


def test_grpc_does_the_same(bundle: ModelBundle, light: Ranker, serve_app: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    models = ServedModels(lambda: Slow(bundle, version="4"))
    models.load()
    settings = ServeSettings(late="light", threads=2, grpc_port=port)
    items = triton.InferInput("item_id", [2], "INT64").set_data_from_numpy(np.array([101, 102]))

    with serve_app(create_app(models, settings)), triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        models.use("light", light)
        not_asked = client.infer("shop", [items], client_timeout=100.0)
        soon = client.infer("shop", [items], client_timeout=SOON_S)
        named = client.infer("shop", [items], model_version="4", client_timeout=100.0)
        with pytest.raises(InferenceServerException, match=r"ranked after \d+ ms, the deadline was|Deadline Exceeded"):
            client.infer("shop", [items], model_version="4", client_timeout=SOON_S)

    request = {"candidates": {"item_id": [101, 102]}}
    answer, of_champion = soon.get_response(as_json=True), named.get_response(as_json=True)
    assert answer["model_version"] == "5"
    assert MARK in json.loads(answer["parameters"]["warnings"]["string_param"])
    assert sorted(soon.as_numpy("score"), reverse=True) == offline(light, request)
    assert [of_champion["model_version"], not_asked.get_response().model_version] == ["4", "4"]
    assert "lighter_model" not in json.dumps(of_champion["parameters"])


def test_lighter_answers_count_for_no_other_version(
    served: tuple[str, list[Any]], models: ServedModels, ask: Any, number: Any, wait_for: Any
) -> None:
    url, told = served
    champions = {"user": {}, "candidates": {"item_id": [101, 102, 103]}}
    watched = ("recmoe_split_requests_total", "recmoe_shadow_requests_total")
    before = [number(ask(f"{url}/metrics").text, name) for name in watched]
    kept = len(models.live.kept())
    wait_for(lambda: ask(f"{url}/metrics").status == 200)

    versions = [ask(f"{url}/v1/rank", champions, SOON).document["model"]["version"] for _ in range(5)]
    after = [number(ask(f"{url}/metrics").text, name) for name in watched]
    num_kept = len(models.live.kept())
    told.clear()
    full = ask(f"{url}/v1/rank", champions, LATER).document["model"]["version"]
    wait_for(lambda: bool(told))

    assert versions == ["5"] * 5
    assert (after, num_kept) == (before, kept)
    assert full == "4"
    assert len(models.live.kept()) == kept + 1
    (served_predictions,) = told
    assert served_predictions.version == "4"


def test_light_version_that_lacks_a_task_of_the_champion_is_not_used(
    bundle: ModelBundle, light_of: Callable[..., Ranker]
) -> None:
    champion = Ranker(bundle, version="4")
    fewer = light_of({"ctr": {"kind": "binary", "label": "click"}}, {})
    other = light_of({}, {"gain": "ctr"})

    assert misfit(fewer, champion) == "version 5 has no task cvr, ctcvr, which the champion has"
    assert misfit(other, champion) == "version 5 has no score profit, which the champion has"
    assert misfit(light_of({}, {"profit": "ctr"}), champion) is None
    models = ServedModels(lambda: champion)
    models.use("light", other)
    assert models.lighter is None
    models.load()
    assert models.lighter is None


@pytest.fixture
def light_of(
    tmp_path: Path, write_model: Callable[..., Path], shop_config: dict[str, Any], shop_log: pa.Table
) -> Callable[[dict[str, Any], dict[str, str]], Ranker]:
    """A model of these tasks and scores, or of the shop's."""

    def make(tasks: dict[str, Any], scores: dict[str, str]) -> Ranker:
        config = {**shop_config, "tasks": tasks or shop_config["tasks"], "ranking": {"scores": scores}}
        folder = tmp_path / f"light-{len(list(tmp_path.iterdir()))}"
        return Ranker.load(write_model(folder, config, shop_log), version="5")

    return make
