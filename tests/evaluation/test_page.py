import base64
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from recmoe.evaluation.baselines import Baselines, Estimate
from recmoe.evaluation.evaluate import EvaluationConfig, evaluate
from recmoe.evaluation.page import write_report_page
from recmoe.evaluation.plots import reliability_plot
from recmoe.evaluation.predictions import Predictions
from recmoe.moe.level_use import LevelUse
from recmoe.moe.segment_use import ALL

CONFIG = EvaluationConfig(num_resamples=5, slices=("device",))
USAGE_GE = [[0.4, 0.0, 0.6], [0.0, 0.1, 0.9]]


@pytest.fixture(scope="module")
def level(make_level: Callable[..., LevelUse]) -> LevelUse:
    outputs = dict(zip(("ctr.0", "cvr.0", "shared.0"), torch.randn(3, 64, 4), strict=True))
    return make_level({ALL: USAGE_GE, "device=tv": USAGE_GE}, outputs)


@pytest.fixture(scope="module")
def page(make_predictions: Callable[[], Predictions], level: LevelUse, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    predictions = make_predictions()
    report = evaluate(predictions, config=CONFIG)
    write_report_page(report, predictions, [level], path, title="a <b> c")
    return path.read_text(encoding="utf-8")


def test_page_holds_everything_itself(page: str) -> None:
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert "<script" not in page
    assert "a &lt;b&gt; c" in page


def test_page_prints_the_space_beside_every_number(page: str) -> None:
    assert re.search(r'auc<span class="soft">\[click\]</span></td>\s*<td class="value">[\d.]+</td>', page)
    assert "cvr<span" in page
    assert "auc[click]" in page


def test_page_has_the_plots_of_every_task_and_the_gates(page: str) -> None:
    images = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)" alt="([^:]*):', page)

    titles = [title.strip() for _, title in images]
    assert titles == [
        "ctr ROC", "ctr Reliability", "ctr Cumulative gain", "ctr Scores",
        "cvr ROC", "cvr Reliability", "cvr Cumulative gain", "cvr Scores",
        "seconds Reliability", "seconds Cumulative gain", "seconds Values",
        "Level 0", "Level 0, gate ctr", "Level 0, gate cvr", "Level 0",
    ]  # fmt: skip
    for image, _ in images:
        assert ElementTree.fromstring(base64.b64decode(image)).tag.endswith("svg")


def test_page_says_that_weights_sum_to_one_only_where_they_do(
    predictions: Predictions, level: LevelUse, page: str, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    doubled = replace(level, usage=replace(level.usage, usage_GE=2 * level.usage.usage_GE))

    write_report_page(evaluate(predictions, config=CONFIG), predictions, [doubled], path, title="doubled")

    assert "mean weight over 12 rows; rows sum to one" in page
    assert "mean weight over 12 rows" in path.read_text(encoding="utf-8")
    assert "rows sum to one" not in path.read_text(encoding="utf-8")


def test_same_report_gives_the_same_page(predictions: Predictions, level: LevelUse, page: str, tmp_path: Path) -> None:
    again = tmp_path / "again.html"

    write_report_page(evaluate(predictions, config=CONFIG), predictions, [level], again, title="a <b> c")

    assert again.read_text(encoding="utf-8") == page


def test_plot_that_cannot_be_drawn_says_why(predictions: Predictions, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    predictions.labels_NT[:, 0] = 0
    predictions.weights_NT[:, 1] = 0
    predictions.labels_NT[:, 2] -= 5

    write_report_page(evaluate(predictions, config=CONFIG), predictions, [], path)

    text = path.read_text(encoding="utf-8")
    assert text.count('<div class="absent">no positive rows</div>') == 3
    assert text.count('<div class="absent">no rows</div>') == 4
    assert text.count('<div class="absent">labels are negative or all 0</div>') == 1
    assert "The model has no gates that choose among experts." in text
    assert "Use of experts" not in text


def test_constant_predictions_can_be_drawn(predictions: Predictions, tmp_path: Path) -> None:
    predictions.predictions_NT[:] = 0.0

    write_report_page(evaluate(predictions, config=CONFIG), predictions, [], tmp_path / "report.html")

    assert (tmp_path / "report.html").exists()


def test_random_order_has_a_column_only_where_it_has_a_number(predictions: Predictions, tmp_path: Path) -> None:
    ctr, seconds = "ctr.auc[all]", "seconds.rmse[all]"
    reached = {"logistic_regression": {ctr: Estimate(0.61), seconds: Estimate(7.25)}}
    report = evaluate(predictions, config=CONFIG)
    assert {ctr, seconds} <= {row.name for row in report.rows}

    with_baselines = replace(report, baselines=Baselines(values=reached, chance={ctr: 0.4125}))
    write_report_page(with_baselines, predictions, [], tmp_path / "report.html")

    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    cards = page.split('<h2 id="summary">')[1].split("<h2")[0].split('<section class="card">')[1:]
    assert ["random order" in card for card in cards] == [True, False, False]
    assert ["logistic regression" in card for card in cards] == [True, True, False]
    assert "ridge regression" in cards[2]
    for card in cards:
        (head, *rows) = re.findall(r"<tr>(.*?)</tr>", card, re.DOTALL)
        assert {row.count("<td") for row in rows} == {head.count("<th")}
    assert "0.4125" in cards[0]
    assert "7.2500" in cards[2]


def test_interval_of_a_slice_stays_on_one_line(page: str) -> None:
    slices = page.split('<h2 id="slices">')[1]

    assert "td small.interval { white-space: nowrap; max-width: none; }" in page
    assert re.search(r'<small class="interval">\[[\d.]+, [\d.]+\]</small>', slices)
    assert not re.search(r"<small>\[", slices)


def test_legend_of_a_regression_lies_below_its_intervals() -> None:
    rng = np.random.default_rng(0)
    labels_N = rng.normal(10.0, 5.0, 400)

    svg = reliability_plot(labels_N + rng.normal(0.0, 1.0, 400), labels_N, is_binary=False)

    background, legend = svg.split('<g id="patch_2">')[1], svg.split('<g id="legend_1">')[1]
    corners = [float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", background.split("/>")[0])]
    heights = [float(y) for y in re.findall(r"translate\([\d.]+ ([\d.]+)\) scale", legend)]
    assert len(heights) >= 2
    assert min(heights) > max(corners)
