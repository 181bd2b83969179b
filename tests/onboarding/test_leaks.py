"""Leaks of every kind, planted in a log whose honest features are strong, and nothing else is warned of."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.config import config_from_dict
from recmoe.data.parquet import ParquetStream
from recmoe.errors import ConfigError, DataError
from recmoe.experiment import ExperimentConfig
from recmoe.onboarding.leaks import LeakReport, find_leaks

NUM_ROWS = 8000
HONEST: dict[str, dict[str, Any]] = {
    "user_id": {"kind": "id", "side": "user"},
    "item_id": {"kind": "id"},
    "row_id": {"kind": "id"},
    "popularity": {"kind": "numeric"},
    "price": {"kind": "numeric"},
    "is_member": {"kind": "id", "side": "user"},
    "tags": {"kind": "id_list"},
}
TASKS: dict[str, dict[str, Any]] = {
    "click": {"kind": "binary", "label": "clicked"},
    "purchase": {"kind": "binary", "label": "purchased", "space": "clicked"},
    "watch": {"kind": "regression", "label": "watch_s", "space": "clicked"},
}


@pytest.fixture
def log() -> dict[str, npt.NDArray[Any]]:
    """Users and items with strong tastes: the honest AUC of user_id alone is above .8."""
    random = np.random.default_rng(7)
    user, item = random.integers(0, 60, NUM_ROWS), random.integers(0, 80, NUM_ROWS)
    taste, fame = random.normal(0, 2.5, 60), random.normal(0, 1.0, 80)
    price = random.gamma(2.0, 10.0, NUM_ROWS)
    chance = 1 / (1 + np.exp(-(taste[user] + fame[item] - price / 10)))
    click = (random.random(NUM_ROWS) < chance).astype(np.int64)
    purchase = click * (random.random(NUM_ROWS) < 0.2 + 0.3 * (user % 2))
    return {
        "user_id": user,
        "item_id": item,
        "row_id": np.arange(NUM_ROWS),
        "popularity": fame[item] + random.normal(0, 0.3, NUM_ROWS),
        "price": price,
        "is_member": user % 2,
        "tags": np.where(item % 3 == 0, "new|red", "blue"),
        "clicked": click,
        "purchased": purchase,
        "watch_s": click * random.gamma(2.0, 20.0, NUM_ROWS),
    }


@pytest.fixture
def look(log: dict[str, npt.NDArray[Any]], tmp_path: Path) -> Callable[..., LeakReport]:
    """Looks for leaks with one planted column among the honest ones."""

    def look(name: str, column: Any, kind: str, **data: Any) -> LeakReport:
        pq.write_table(pa.table({**log, name: column}), tmp_path / "train.parquet")
        features = {**HONEST, "tags": {"kind": "id_list", "separator": "|"}, name: {"kind": kind}}
        config = config_from_dict(
            ExperimentConfig,
            {
                "name": "planted",
                "data": {"train": str(tmp_path / "train.parquet"), **data},
                "inputs": {"features": features},
                "tasks": TASKS,
            },
        )
        return find_leaks(config, open_train(config, tmp_path))

    return look


def open_train(config: ExperimentConfig, folder: Path) -> ParquetStream:
    return config.data.build("train", seed=0, cache_dir=folder)


def test_strong_honest_features_are_not_warned_of(
    look: Callable[..., LeakReport], log: dict[str, npt.NDArray[Any]]
) -> None:
    report = look("hour", log["row_id"] % 24, "numeric")

    told = {(one.feature, one.task): one.value or 0.0 for one in report.alone}
    assert report.warnings == ()
    assert told["user_id", "click"] > 0.8
    assert 0.45 < told["row_id", "click"] < 0.55


def test_label_turned_round_is_the_opposite_of_it(
    look: Callable[..., LeakReport], log: dict[str, npt.NDArray[Any]]
) -> None:
    report = look("nonclk", 1 - log["clicked"], "id")

    assert len(report.warnings) == 1
    assert report.warnings[0].startswith(
        "inputs.features.nonclk: it is the opposite of click in 100.0% of the rows, AUC 1.000 by that alone"
    )
    assert "add nonclk to data.allow_leaks" in report.warnings[0]


def test_label_written_as_text_is_a_copy(look: Callable[..., LeakReport], log: dict[str, npt.NDArray[Any]]) -> None:
    report = look("was_clicked", np.where(log["clicked"] == 1, "Y", "N"), "id")

    assert [(leak.feature, leak.task, leak.reason) for leak in report.leaks] == [("was_clicked", "click", "outcome")]
    assert "it is a copy of click in 100.0% of the rows" in report.warnings[0]


def test_time_stayed_after_the_click_is_filled_afterwards(
    look: Callable[..., LeakReport], log: dict[str, npt.NDArray[Any]]
) -> None:
    random = np.random.default_rng(0)
    stayed = np.where(random.random(NUM_ROWS) < 0.95, log["clicked"], 1 - log["clicked"])

    report = look("stay_ms", stayed * random.gamma(2.0, 900.0, NUM_ROWS), "numeric")

    assert {(leak.feature, leak.task) for leak in report.leaks} >= {("stay_ms", "click")}
    assert re.search(
        r"stay_ms: it is filled in 9[45]\.\d% of the rows with click and in [45]\.\d% of the others, AUC 0\.9",
        report.warnings[0],
    )
    assert "is it filled only after the event?" in report.warnings[0]


def test_number_that_grows_with_the_label_tells_alone(
    look: Callable[..., LeakReport], log: dict[str, npt.NDArray[Any]]
) -> None:
    seconds = np.random.default_rng(0).normal(0, 1, NUM_ROWS) + 3.5 * log["clicked"]

    report = look("seconds", seconds, "numeric")

    assert report.leaks[0].reason == "alone"
    assert re.search(
        r"seconds: its value alone predicts click with AUC 0\.99\d \(all weaker features together: 0\.\d+\)",
        report.warnings[0],
    )


def test_purchase_among_the_features_of_clicks_is_an_outcome(
    look: Callable[..., LeakReport], log: dict[str, npt.NDArray[Any]]
) -> None:
    bought = (log["clicked"] == 1) & (log["row_id"] % 9 == 0)

    report = look("ordered", np.where(bought, "yes", "no"), "id")

    assert [leak.measure for leak in report.leaks] == ["share"]
    assert f"ordered: 100.0% of the {bought.sum():,} rows in which it is set have click" in report.warnings[0]
    assert "is it an outcome itself?" in report.warnings[0]


def test_number_of_the_order_is_filled_only_with_a_purchase(
    look: Callable[..., LeakReport], log: dict[str, npt.NDArray[Any]]
) -> None:
    orders = [f"o{row}" if bought else None for row, bought in enumerate(log["purchased"])]

    report = look("order_id", orders, "id")

    found = {(leak.task, leak.reason) for leak in report.leaks}
    assert found == {("purchase among clicked", "afterwards"), ("click", "afterwards")}


def test_label_of_a_space_among_the_features_is_a_condition(
    look: Callable[..., LeakReport], log: dict[str, npt.NDArray[Any]]
) -> None:
    report = look("opened", np.where(log["clicked"] == 1, 2, 1), "numeric")

    assert report.leaks[0].task == "click"


def test_amount_of_a_regression_is_found_by_its_ranks(
    look: Callable[..., LeakReport], log: dict[str, npt.NDArray[Any]]
) -> None:
    points = np.where(log["clicked"] == 1, np.sqrt(log["watch_s"]), np.random.default_rng(0).gamma(2.0, 3.0, NUM_ROWS))

    report = look("points", points, "numeric")

    assert [(leak.task, leak.measure) for leak in report.leaks] == [("watch among clicked", "rank_correlation")]
    assert "its value alone predicts watch among clicked with a rank correlation of 0.97" in report.warnings[0]


def test_flag_of_an_amount_is_held_against_any_amount(log: dict[str, npt.NDArray[Any]], tmp_path: Path) -> None:
    amount = log["clicked"] * (1 + log["row_id"] % 7)
    pq.write_table(pa.table({**log, "spent": amount, "paid": log["clicked"] == 1}), tmp_path / "train.parquet")
    config = config_from_dict(
        ExperimentConfig,
        {
            "name": "planted",
            "data": {"train": str(tmp_path / "train.parquet")},
            "inputs": {"features": {"paid": {"kind": "id"}, "price": {"kind": "numeric"}}},
            "tasks": {"spend": {"kind": "regression", "label": "spent"}},
        },
    )

    report = find_leaks(config, open_train(config, tmp_path))

    assert {leak.task for leak in report.leaks} >= {"spend > 0"}
    assert "it is a copy of spend > 0 in 100.0% of the rows" in report.warnings[0]


def test_allowed_feature_is_listed_and_not_warned_of(
    look: Callable[..., LeakReport], log: dict[str, npt.NDArray[Any]]
) -> None:
    report = look("nonclk", 1 - log["clicked"], "id", allow_leaks=["nonclk"])

    assert report.warnings == ()
    assert [leak.feature for leak in report.allowed] == ["nonclk"]
    report.refuse()


def test_threshold_comes_from_the_config(look: Callable[..., LeakReport], log: dict[str, npt.NDArray[Any]]) -> None:
    seconds = np.random.default_rng(0).normal(0, 1, NUM_ROWS) + 2.0 * log["clicked"]

    usual, strict = look("seconds", seconds, "numeric"), look("seconds", seconds, "numeric", leak_auc=0.9)

    assert usual.warnings == ()
    assert [leak.feature for leak in strict.leaks] == ["seconds"]


def test_strict_names_every_feature(look: Callable[..., LeakReport], log: dict[str, npt.NDArray[Any]]) -> None:
    report = look("nonclk", 1 - log["clicked"], "id")

    with pytest.raises(DataError, match=r"1 feature may know the answer.*--strict.*\n  inputs\.features\.nonclk: "):
        report.refuse()


def test_sample_is_bounded_and_said_so(log: dict[str, npt.NDArray[Any]], tmp_path: Path) -> None:
    pq.write_table(pa.table({**log, "nonclk": 1 - log["clicked"]}), tmp_path / "train.parquet", row_group_size=500)
    config = config_from_dict(
        ExperimentConfig,
        {
            "name": "planted",
            "data": {"train": str(tmp_path / "train.parquet")},
            "inputs": {"features": {"nonclk": {"kind": "numeric"}}},
            "tasks": {"click": TASKS["click"]},
        },
    )

    report = find_leaks(config, open_train(config, tmp_path), max_rows=1600)

    assert report.looked_at == "1,600 of 8,000 training rows, in runs from all parts"
    assert [leak.feature for leak in report.leaks] == ["nonclk"]


def test_few_positives_are_no_evidence(look: Callable[..., LeakReport], log: dict[str, npt.NDArray[Any]]) -> None:
    for label in ("clicked", "purchased", "watch_s"):
        log[label] = np.zeros(NUM_ROWS, np.int64)
    log["clicked"][[10, 4000, 7000]] = 1

    report = look("flag", log["clicked"], "id")

    assert report.warnings == ()


def test_allowed_feature_that_is_none_is_a_config_error(look: Callable[..., LeakReport]) -> None:
    with pytest.raises(ConfigError, match=r"data\.allow_leaks: no such feature: prize, did you mean price\?"):
        look("hour", np.zeros(NUM_ROWS), "numeric", allow_leaks=["prize"])
