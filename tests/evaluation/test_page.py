import base64
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from recmoe.evaluation.evaluate import EvaluationConfig, evaluate
from recmoe.evaluation.page import write_report_page
from recmoe.evaluation.predictions import Predictions
from recmoe.moe.balance import ExpertUsage

CONFIG = EvaluationConfig(num_resamples=5, slices=("device",))
USAGE = ExpertUsage(
    level=0,
    gates=("ctr", "cvr"),
    experts=("ctr.0", "cvr.0", "shared.0"),
    usage_GE=torch.tensor([[0.4, 0.0, 0.6], [0.0, 0.1, 0.9]], dtype=torch.float64),
    visible_GE=torch.tensor([[True, False, True], [False, True, True]]),
    num_rows=12,
)


@pytest.fixture(scope="module")
def page(make_predictions: Callable[[], Predictions], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    predictions = make_predictions()
    report = evaluate(predictions, config=CONFIG)
    write_report_page(report, predictions, [USAGE], path, title="a <b> c")
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
        "seconds Reliability", "seconds Cumulative gain", "seconds Values", "Level 0",
    ]  # fmt: skip
    for image, _ in images:
        assert ElementTree.fromstring(base64.b64decode(image)).tag.endswith("svg")


def test_same_report_gives_the_same_page(predictions: Predictions, page: str, tmp_path: Path) -> None:
    again = tmp_path / "again.html"

    write_report_page(evaluate(predictions, config=CONFIG), predictions, [USAGE], again, title="a <b> c")

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
    assert "Gates and experts" not in text


def test_constant_predictions_can_be_drawn(predictions: Predictions, tmp_path: Path) -> None:
    predictions.predictions_NT[:] = 0.0

    write_report_page(evaluate(predictions, config=CONFIG), predictions, [], tmp_path / "report.html")

    assert (tmp_path / "report.html").exists()
