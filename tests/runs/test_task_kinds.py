"""Every kind of task from its log to a served number: train, evaluate, baselines, page, bundle, ranking."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.config import config_from_dict
from recmoe.evaluation.report import Report
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import RankRequest
from recmoe.runs.train import RunResult
from recmoe.tasks import TASK_KINDS
from tests.conftest import Train

NUM_ROWS = 4000
ACTIONS = np.array(["view", "cart", "buy"])
TASKS: dict[str, Any] = {
    "ctr": {"kind": "binary", "label": "click"},
    "cvr": {"kind": "binary", "label": "buy", "space": "click", "available": "reports"},
    "ctcvr": {"kind": "product", "of": ["ctr", "cvr"]},
    "watch": {"kind": "regression", "label": "seconds", "transform": "log1p"},
    "stars": {"kind": "ordinal", "label": "stars", "levels": [1, 2, 3, 4, 5]},
    "action": {"kind": "classes", "label": "action", "classes": {"view": 0, "cart": 2, "buy": 10}},
    "delay": {"kind": "quantile", "label": "delay", "quantiles": [0.1, 0.5, 0.9], "predicts": 0.9},
    "spend": {"kind": "zero_inflated_lognormal", "label": "spent"},
    "order": {"kind": "ranking", "label": "click"},
}


def log_of(num_rows: int, seed: int) -> pa.Table:
    """Lists of ten rows; every outcome depends on x alone, up to noise."""
    random = np.random.default_rng(seed)
    x = random.uniform(-2, 2, num_rows)
    click = random.random(num_rows) < 1 / (1 + np.exp(-2 * x))
    buy = click & (random.random(num_rows) < 1 / (1 + np.exp(-x)))
    reports = random.random(num_rows) < 0.5
    odds = np.exp(np.outer(x, [-1.0, 0.0, 1.0]) + random.gumbel(size=(num_rows, 3)))
    return pa.table(
        {
            "visit": np.arange(num_rows) // 10,
            "user": [f"u{i % 7}" for i in range(num_rows)],
            "item": [f"i{i % 11}" for i in range(num_rows)],
            "x": x,
            "click": click.astype(int),
            # Who does not report has no purchases in the log, whatever was bought.
            "buy": (buy & reports).astype(int),
            "reports": reports.astype(int),
            "seconds": np.exp(3 + 0.5 * x + 0.8 * random.normal(size=num_rows)),
            "stars": np.digitize(1.5 * x + random.logistic(size=num_rows), [-2, -1, 0, 2]) + 1,
            "action": ACTIONS[odds.argmax(axis=1)],
            "delay": 10 + 2 * x + random.exponential(3.0, num_rows),
            "spent": np.where(random.random(num_rows) < 0.3, np.exp(1 + 0.5 * x + random.normal(size=num_rows)), 0.0),
        }
    )


def config_of(folder: Path, *overrides: str) -> ExperimentConfig:
    for seed, (split, num_rows) in enumerate({"train": NUM_ROWS, "validation": 800, "test": 2000}.items()):
        pq.write_table(log_of(num_rows, seed), folder / f"{split}.parquet")
    values = {
        "name": "kinds",
        "data": {split: str(folder / f"{split}.parquet") for split in ("train", "validation", "test")},
        "inputs": {
            "width": 4,
            "group": "visit",
            "item": "item",
            "features": {
                "user": {"kind": "id", "side": "user"},
                "item": {"kind": "id", "side": "item"},
                "x": {"kind": "numeric", "side": "item"},
            },
        },
        "tasks": TASKS,
        "model": {"architecture": {"kind": "mmoe", "num_experts": 2, "expert_hidden": [8]}, "towers": {"hidden": [8]}},
        "tables": {"backend": "plain", "optimizer": {"kind": "rowwise_adagrad", "lr": 0.01}},
        "training": {
            "batch_size": 100,
            "epochs": 6,
            "device": "cpu",
            "precision": "fp32",
            "dense_optimizer": {"kind": "adamw", "lr": 0.01},
            "early_stopping": {"metric": "score", "patience": 5},
        },
        "evaluation": {"num_resamples": 20, "baselines": ["logistic_regression"]},
        "tracking": {"kind": "none"},
    }
    return config_from_dict(ExperimentConfig, values, overrides=["data.shuffle_block=20", *overrides])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, train: Train) -> RunResult:
    folder = tmp_path_factory.mktemp("kinds")
    return train(config_of(folder), folder / "run")


@pytest.fixture(scope="module")
def report(run: RunResult) -> Report:
    assert run.report is not None
    return run.report


def test_every_kind_is_trained() -> None:
    assert {task["kind"] for task in TASKS.values()} == {kind.model_fields["kind"].default for kind in TASK_KINDS}


def test_expected_values_are_right_on_average(report: Report) -> None:
    for task in ("watch", "stars", "action", "spend"):
        assert report.value(f"{task}.calibration[all]") == pytest.approx(1.0, abs=0.1), task


def test_levels_and_classes_are_told_apart(report: Report) -> None:
    # The most frequent class alone is right in two rows of five.
    assert report.value("action.accuracy[all]") > 0.5
    assert report.value("action.logloss[all]") < 0.95
    assert report.value("stars.accuracy[all]") > 0.35
    assert report.value("stars.within_one[all]") > 0.7
    assert report.value("stars.rmse[all]") < 1.3


def test_quantiles_cover_their_shares(report: Report) -> None:
    for quantile in (0.1, 0.5, 0.9):
        assert report.value(f"delay.coverage@{quantile}[all]") == pytest.approx(quantile, abs=0.05)
        assert report.row(f"delay.pinball@{quantile}[all]").low is not None
    assert not any(name.startswith(("delay.rmse", "delay.calibration", "delay.mae")) for name in report.values())


def test_score_orders_its_lists_as_well_as_the_probability_does(report: Report) -> None:
    assert report.value("order.gauc_impression[all]") > report.value("ctr.gauc_impression[all]") - 0.01
    assert report.value("order.ndcg@5[all]") > 0.85
    assert not any(name.startswith(("order.calibration", "order.logloss")) for name in report.values())


def test_rows_that_are_not_available_count_neither_in_training_nor_in_metrics(report: Report) -> None:
    test = log_of(2000, 2)
    counts = (test["click"].to_numpy() == 1) & (test["reports"].to_numpy() == 1)

    row = report.row("cvr.calibration[click & reports]")

    assert row.num_rows == counts.sum()
    # Trained on all clicks, the rate of purchases would be half of what it is where they are reported.
    assert row.value == pytest.approx(1.0, abs=0.15)
    assert report.row("ctcvr.auc[reports]").num_rows == (test["reports"].to_numpy() == 1).sum()


def test_mean_absolute_error_of_an_amount_is_that_of_its_median(report: Report) -> None:
    seconds = log_of(2000, 2)["seconds"].to_numpy()

    mae = report.value("watch.mae[all]")

    assert mae < np.abs(seconds - np.median(seconds)).mean()


def test_baselines_learn_what_fits_them_and_say_what_does_not(report: Report) -> None:
    assert report.baselines is not None
    settings = report.baselines.settings["logistic_regression"]
    compared = {comparison.task for comparison in report.baselines.comparisons}
    values = report.baselines.values["logistic_regression"]

    assert settings["delay"] == "none fits: the task predicts a quantile"
    assert compared == set(TASKS) - {"delay"}
    assert not any(name.startswith("delay") for name in values)
    assert values["watch.calibration[all]"].value == pytest.approx(1.0, abs=0.1)


def test_page_shows_every_task_and_explains_what_it_measures(run: RunResult) -> None:
    page = run.folder.page.read_text(encoding="utf-8")

    for task in TASKS:
        assert f">{task}" in page or f"{task}." in page
    assert 'alt="delay Coverage:' in page
    assert 'alt="delay Reliability:' not in page
    assert 'alt="order Reliability:' not in page
    assert "Mean pinball loss of a quantile" in page
    assert "Share of rows whose most probable class is the label." in page


def test_bundle_repeats_the_training_model_and_ranks_by_any_kind(run: RunResult) -> None:
    bundle = ModelBundle.load(run.folder.bundle)
    bundle.check_replay()
    candidates = [{"item": f"i{place}", "x": place / 2 - 1} for place in range(5)]
    request = RankRequest.model_validate({"user": {"user": "u1"}, "candidates": candidates})

    ranked = Ranker(bundle).rank(request)

    for task in TASKS:
        values = [item.tasks[task] for item in sorted(ranked.items, key=lambda item: item.item_id)]
        assert len(values) == 5
        assert values == sorted(values), task


def test_curves_hold_the_loss_of_every_task(run: RunResult) -> None:
    lines = [json.loads(line) for line in run.folder.metrics.read_text().splitlines()]

    last = next(line for line in reversed(lines) if "train/order/loss" in line)

    assert {f"train/{task}/loss" for task in TASKS} <= set(last)
