"""A server warns of its champion's mean predictions, in its log, its metrics, its probe and its description."""

import json
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recmoe.errors import ServingError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker, RankRequest
from serving.app import create_app
from serving.models.holder import ServedModels
from serving.models.split import UserSplit
from serving.server import serve
from serving.settings import ServeSettings

REQUEST = {"user": {"user_id": "u3"}, "candidates": {"item_id": [101, 102, 103], "price": [1, 2, 3]}}
EAGER = {"calibration_window_s": 2.0, "calibration_candidates": 90}


def mean(page: str, task: str, of: str) -> float:
    found = re.findall(rf'^recmoe_prediction_mean{{of="{of}",task="{task}"}} (\S+)$', page, re.MULTILINE)
    return float(found[0]) if found else float("nan")


def expected_mean(bundle: ModelBundle, task: str) -> float:
    items = Ranker(bundle).rank(RankRequest.parse(REQUEST)).items
    return sum(item.tasks[task] for item in items) / len(items)


def wait_for(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def test_task_out_of_its_band_is_told_everywhere_and_the_server_stays_ready(
    bundle: ModelBundle, ranker: Ranker, serve_app: Any, ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    served = expected_mean(bundle, "ctr")
    settings = ServeSettings(**EAGER, expected_rates={"ctr": served * 5, "cvr": expected_mean(bundle, "cvr")})
    quiet: list[str] = []

    with serve_app(create_app(ranker, settings)) as url:
        quiet += ask(f"{url}/readyz").document["warnings"]

        def is_warned() -> bool:
            ask(f"{url}/v1/rank", REQUEST)
            ask(f"{url}/v1/rank", {**REQUEST, "tasks": ["ctr"]})
            return bool(ask(f"{url}/readyz").document["warnings"])

        wait_for(is_warned)
        ready = ask(f"{url}/readyz")
        (model,) = ask(f"{url}/v1/models").document
        page = ask(f"{url}/metrics").text

    (warning,) = ready.document["warnings"]
    assert quiet == []
    assert ready.status == 200
    assert warning.startswith("shop version 4: task ctr predicts")
    assert model["warnings"] == [warning]
    assert mean(page, "ctr", "served") == pytest.approx(served, rel=1e-5)
    assert mean(page, "ctr", "expected") == pytest.approx(served * 5)
    assert mean(page, "ctr", "training") == pytest.approx(bundle.mean_predictions["ctr"])
    assert 'recmoe_calibration_alarm{task="ctr"} 1.0' in page
    assert 'recmoe_calibration_alarm{task="cvr"} 0.0' in page
    assert caplog.text.count("calibration: shop version 4: task ctr predicts") == 1


def test_only_the_champion_is_watched(bundle: ModelBundle, ranker: Ranker, serve_app: Any, ask: Any) -> None:
    models = ServedModels(lambda: ranker, split=UserSplit(share=1.0, column="user_id"))
    models.load()
    models.use("challenger", Ranker(bundle, version="5"))
    of_no_user = {"candidates": REQUEST["candidates"]}

    with serve_app(create_app(models, ServeSettings(calibration_window_s=60))) as url:
        versions = [ask(f"{url}/v1/rank", one).document["model"]["version"] for one in (REQUEST, of_no_user)]
        wait_for(lambda: 'recmoe_prediction_mean_candidates{task="ctr"}' in ask(f"{url}/metrics").text)
        page = ask(f"{url}/metrics").text

    assert versions == ["5", "4"]
    assert 'recmoe_prediction_mean_candidates{task="ctr"} 3.0' in page
    assert 'recmoe_score_count{task="ctr"} 6.0' in page


def test_rate_of_a_task_that_the_model_does_not_have_is_refused(bundle_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=r"expected_rates: unknown task ctrr, did you mean ctr\?"):
        serve(str(bundle_path), ServeSettings(port=0, expected_rates={"ctr": 0.1, "ctrr": 0.1}), runs=tmp_path)


@pytest.mark.slow
def test_workers_are_judged_together_and_all_know_the_verdict(
    start_server: Any, bundle_path: Path, bundle: ModelBundle
) -> None:
    rate = expected_mean(bundle, "ctr") * 5
    server = start_server(
        bundle_path, "--workers", "2", "--threads", "1", "--deadline-ms", "60000", "--expected-rates", f"ctr={rate}",
        "--calibration-window-s", "120", "--calibration-candidates", "600",
    )  # fmt: skip

    def fetch(path: str, document: Any = None) -> str:
        data = None if document is None else json.dumps(document).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{server.url}{path}", data=data), timeout=60) as response:
            text: str = response.read().decode()
        return text

    wait_for(lambda: "recmoe_workers 2.0" in fetch("/metrics"))
    for _ in range(200):
        fetch("/v1/rank", REQUEST)
    wait_for(lambda: bool(json.loads(fetch("/readyz"))["warnings"]))
    time.sleep(0.2)
    # A connection each: both workers are asked.
    told = [json.loads(fetch("/readyz"))["warnings"] for _ in range(20)]
    page = fetch("/metrics")

    # Neither worker alone has ranked 600 candidates.
    assert 'recmoe_prediction_mean_candidates{task="ctr"} 600.0' in page
    assert all(len(warnings) == 1 for warnings in told)
    assert "with 600 candidates in 200 requests" in told[0][0]
