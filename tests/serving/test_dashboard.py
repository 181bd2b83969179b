"""The dashboard asks for what a server exposes, and shows all of it."""

import json
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
from recmoe.ranking.items import ArrowStore
from serving.app import create_app
from serving.calibration.watch import Calibration, TaskCalibration
from serving.models.holder import ServedModels
from serving.models.refusal import Refusal
from serving.models.split import UserSplit
from serving.settings import ServeSettings

DASHBOARD: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "serving/dashboards/recmoe.json").read_text(encoding="utf-8")
)
TARGETS: list[dict[str, Any]] = [target for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
VARIABLES = DASHBOARD["templating"]["list"]
METRIC = re.compile(r"\b(recmoe_\w+)")
SELECTOR = re.compile(r"\b(recmoe_\w+)\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
BY_PROMETHEUS = {"instance"}
"""Labels of the server that is scraped."""

Series = dict[str, list[dict[str, str]]]


@pytest.fixture(scope="module")
def exposed(bundle: ModelBundle, tmp_path_factory: pytest.TempPathFactory, serve_app: Any, ask: Any) -> Series:
    """Labels of all series of a server to which everything has happened that it counts, by name."""
    items = pa.table({"item_id": [101], "price": [3.5], "words": [["red"]]})
    users = pa.table({"user_id": [f"u{user}" for user in range(0, 12, 2)], "age": [30.0] * 6})
    folder = tmp_path_factory.mktemp("stores")
    champion = Ranker.load(
        bundle,
        items=ArrowStore.build(folder / "items", items, bundle.encoder),
        items_known_bytes=2**20,
        users=ArrowStore.build(folder / "users", users, bundle.encoder, side="user"),
        version="4",
    )
    models = ServedModels(lambda: champion, split=UserSplit(share=0.5, column="user_id"))
    models.load()
    models.use("challenger", Ranker(bundle, version="5"))
    models.use("shadow", Ranker(bundle, version="6"))
    models.refused["champion"] = Refusal(role="champion", version="7", reason="it differs", at="2026-11-20T10:00:00")
    known = TaskCalibration(
        task="ctr", served=0.1, expected=0.1, source="baseline", training=0.2, num_candidates=7, warning=None
    )
    app = create_app(
        models, ServeSettings(shadow_share=1.0), calibration=Calibration((known,)), on_served=lambda _: None
    )
    request = {"user": {"device": "tv"}, "candidates": {"item_id": [101, 7]}}
    with serve_app(app) as url:
        for headers in ({}, {"X-Deadline-Ms": "0.001"}):
            ask(f"{url}/v1/rank", request, headers)
        # Half of the users are the challenger's, which has no store.
        for user in range(12):
            ask(f"{url}/v1/rank", {**request, "user": {"user_id": f"u{user}"}}, {})
        app.state.metrics.ready()
        app.state.metrics.models.swap("champion", "loaded")
        app.state.metrics.models.registry_failed()
        for store in app.state.metrics.stores.values():
            store.swap("loaded")
        deadline_s = time.monotonic() + 60
        while not re.search("recmoe_shadow_top_agreement_count [1-9]", page := ask(f"{url}/metrics").text):
            assert time.monotonic() < deadline_s
    series: Series = defaultdict(list)
    for line in page.splitlines():
        name, labels = re.match(r"(\w+)(?:\{(.*)\})? ", line).groups() if not line.startswith("#") else ("", "")  # type: ignore[union-attr]
        if name.startswith("recmoe_") and not name.endswith("_created"):
            series[name].append({label: value for label, _, value in MATCHER.findall(labels or "")})
    return series


def family(name: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", name)


@pytest.mark.parametrize("target", TARGETS, ids=[target["expr"][:60] for target in TARGETS])
def test_names_and_labels_of_a_query_are_exposed(target: dict[str, Any], exposed: Series) -> None:
    expression = target["expr"]
    names = set(METRIC.findall(expression))
    of_names = {label for name in names for labels in exposed[name] for label in labels} | BY_PROMETHEUS
    kept = {label for found in re.findall(r"\bby \(([^)]*)\)", expression) for label in found.split(", ")}

    assert names
    assert not names - exposed.keys()
    # Each series is that of the servers that were chosen, and every value that is asked for by name has come.
    assert names == {name for name, matchers in SELECTOR.findall(expression) if 'instance=~"$instance"' in matchers}
    for name, matchers in SELECTOR.findall(expression):
        for label, kind, value in MATCHER.findall(matchers):
            assert label in {one for labels in exposed[name] for one in labels} | BY_PROMETHEUS
            assert kind != "=" or value.startswith("$") or value in {labels[label] for labels in exposed[name]}
    assert kept <= of_names
    assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept


def test_everything_that_is_exposed_is_shown(exposed: Series) -> None:
    shown = {family(name) for target in TARGETS for name in METRIC.findall(target["expr"])}

    assert {family(name) for name in exposed} == shown


def test_source_is_a_variable_and_so_are_those_that_queries_name(exposed: Series) -> None:
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    sources = {json.dumps(one["datasource"]) for one in [*panels, *TARGETS]}
    asked = [re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]) for variable in VARIABLES[1:]]

    assert DASHBOARD["schemaVersion"] == 42
    assert VARIABLES[0]["type"] == "datasource"
    assert sources == {'{"type": "prometheus", "uid": "${datasource}"}'}
    assert {name for target in TARGETS for name in re.findall(r"\$([a-z]\w*)", target["expr"])} == {"instance", "task"}
    for found in asked:
        assert found is not None
        assert found[2] in set(exposed[found[1]][0]) | BY_PROMETHEUS


def test_panels_have_their_own_places() -> None:
    places = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert grid["x"] + grid["w"] <= 24
        assert not cells & places
        places |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
