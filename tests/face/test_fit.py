"""fit, train and evaluate: from a frame to a model, by the code of the command line."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import recmoe
from recmoe.errors import ConfigError, DataError, TrainingError
from recmoe.face.fitted_model import FittedModel
from recmoe.runs.predictions import write_predictions
from recmoe.runs.source import load_ranker
from tests.parity.of_runs import assert_same_report

QUICK = (
    "training.epochs=4",
    "training.batch_size=64",
    "tables.backend=plain",
    "evaluation.num_resamples=20",
    "model.architecture={kind: shared_bottom, hidden: [16]}",
)


def shop(num_rows: int = 1200) -> pd.DataFrame:
    """Users with odd numbers click on most items, others on few; the rating says nothing."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "user_id": rng.integers(30, size=num_rows),
            "item_id": rng.integers(40, size=num_rows),
            "device": rng.choice(["phone", "tablet"], num_rows),
            "price": rng.lognormal(2, 1, num_rows),
        }
    )
    frame["click"] = (rng.random(num_rows) < np.where(frame["user_id"] % 2, 0.8, 0.2)).astype(int)
    frame["purchase"] = frame["click"] * (rng.random(num_rows) < 0.4)
    return frame


@pytest.fixture(scope="module")
def fitted() -> FittedModel:
    """A model of the shop, fitted inside an event loop as a notebook has one."""

    async def cell() -> FittedModel:
        return recmoe.fit(shop(), overrides=QUICK, quiet=True)

    return asyncio.run(cell())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_frame_becomes_a_model_that_has_learned(fitted: FittedModel) -> None:
    assert fitted.report is not None

    frame = fitted.report.frame()

    assert list(frame.columns) == ["task", "metric", "space", "value", "low", "high"]
    auc = frame[(frame["task"] == "click") & (frame["metric"] == "auc")].iloc[0]
    # The truth reaches .8.
    assert auc["space"] == "all"
    assert auc["low"] < auc["value"] < auc["high"]
    assert auc["value"] > 0.7


def test_predictions_are_those_of_the_command_line_in_the_frame_s_order(fitted: FittedModel, tmp_path: Path) -> None:
    frame = shop(200).set_index(pd.Index([f"row {number}" for number in range(200)]))
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "log.parquet")

    predicted = fitted.predict(frame, keep=["price"])

    write_predictions(
        load_ranker(str(fitted.run_dir)), [str(tmp_path / "log.parquet")], tmp_path / "out.parquet", keep=["price"]
    )
    pd.testing.assert_frame_equal(predicted.reset_index(drop=True), pd.read_parquet(tmp_path / "out.parquet"))
    assert list(predicted.index) == list(frame.index)
    assert list(predicted["price"]) == list(frame["price"])


def test_request_is_ranked(fitted: FittedModel) -> None:
    request = {"user": {"user_id": 1}, "candidates": [{"item_id": 3, "price": 2.0}, {"item_id": 4, "price": 5.0}]}

    response = fitted.rank(request)

    assert sorted(item.item_id for item in response.items if isinstance(item.item_id, int)) == [3, 4]


def test_notebook_shows_the_short_table_of_metrics(fitted: FittedModel) -> None:
    shown = fitted._repr_html_()

    assert "<b>model</b>, shared_bottom" in shown
    assert "rows of the test split" in shown
    assert "<td>auc</td>" in shown
    assert "<td>logloss</td>" not in shown
    assert list(fitted.metrics().columns[6:]) == ["logistic regression", "boosted trees", "the model is"]
    assert "logistic regression" in repr(fitted)


def test_model_that_is_worse_than_a_baseline_is_shown_with_a_warning(fitted: FittedModel) -> None:
    assert fitted.report is not None
    assert fitted.report.baselines is not None
    worse = [replace(one, verdict="worse") for one in fitted.report.baselines.comparisons]
    report = replace(fitted.report, baselines=replace(fitted.report.baselines, comparisons=tuple(worse)))

    shown = FittedModel(fitted.run_dir, fitted.config, report=report)._repr_html_()

    assert "<p>warning: click: AUC 0." in shown


def test_model_without_a_test_split_says_so(fitted: FittedModel) -> None:
    model = FittedModel(fitted.run_dir, fitted.config, report=None)

    assert "there is no test split" in model._repr_html_()
    assert model.metrics().empty


def test_saved_bundle_is_measured_like_the_run(fitted: FittedModel, tmp_path: Path) -> None:
    bundle = fitted.save(tmp_path / "bundle")

    of_bundle = recmoe.evaluate(bundle, data=shop(300))

    assert of_bundle == recmoe.evaluate(fitted, data=shop(300))
    assert of_bundle.num_rows == 300
    assert recmoe.evaluate(fitted) == fitted.report


def test_model_is_registered(fitted: FittedModel, mlflow_folder: Path) -> None:
    uri = f"sqlite:///{mlflow_folder / 'mlflow.db'}"

    version = fitted.register("shop", registry=uri)

    assert (version.name, version.version) == ("shop", "1")


def test_temporary_folder_goes_with_the_model_and_nothing_else_is_written(here: Path) -> None:
    model = recmoe.fit(shop(), tasks=["click"], overrides=[*QUICK, "training.epochs=1"], quiet=True)
    folder = model.run_dir.parent

    assert folder.exists()
    del model
    assert not folder.exists()
    assert list(here.iterdir()) == []


@pytest.mark.usefixtures("here")
def test_given_config_and_splits_are_trained_as_they_are() -> None:
    written = recmoe.fit(
        shop(), tasks=["click"], run_dir="runs/first", overrides=[*QUICK, "tracking={kind: none}"], quiet=True
    )
    config = yaml.safe_load(Path("runs/first-log/config.yaml").read_text())
    splits: Any = {split: shop().sample(300, random_state=number) for number, split in enumerate(("train", "test"))}
    changes = [*QUICK, "training.early_stopping=null"]

    again = recmoe.fit(splits, config=config, overrides=changes, seed=5, quiet=True)
    resumed = recmoe.train(written.config, "runs/first", resume=True)

    assert (list(written.config.tasks), config["name"]) == (["click"], "first")
    assert written.config_yaml == Path("runs/first-log/config.yaml").read_text()
    assert (again.config.seed, again.config.data.validation) == (5, ())
    assert again.report is not None
    assert again.report.num_rows == 300
    assert_same_report(resumed.report, written.report)


def test_one_frame_is_split_for_a_given_config_as_init_would(here: Path) -> None:
    frame = shop().assign(ts=pd.date_range("2025-01-01", periods=1200, freq="min"))
    config = {
        "name": "own",
        "inputs": {"features": {"user_id": {"kind": "id"}}},
        "tasks": {"ctr": {"kind": "binary", "label": "click"}},
        "training": {"epochs": 1, "batch_size": 64},
        "tables": {"backend": "plain"},
    }

    model = recmoe.fit(frame, config=config, run_dir="own", overrides=["tracking={kind: none}"], quiet=True)

    assert [
        pq.read_metadata(here / f"own-log/{split}.parquet").num_rows for split in ("train", "validation", "test")
    ] == [
        960,
        120,
        120,
    ]
    assert model.report is not None
    assert model.report.num_rows == 120


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"tasks": ["clik"]}, DataError, r"tasks clik: the log has no such column, did you mean click\?"),
        ({"tasks": "click"}, ConfigError, r"tasks: expected a list of columns or a mapping of tasks, got 'click'"),
        ({"tasks": ["click"], "config": {}}, ConfigError, "fit takes tasks or a config, not both"),
        ({"leave_out": ["click"], "config": {}}, ConfigError, "fit takes leave_out or a config, not both"),
        ({"leave_out": ["colour"]}, DataError, "leave_out colour: the log has no such column"),
        ({"shares": (1.0, 0.0, 0.0)}, DataError, "shares: three parts above 0 that sum to 1"),
        ({"overrides": ["training.stepz=1"]}, ConfigError, r"overrides  training\.stepz: unknown key"),
        (
            {"data": shop()[["user_id", "price"]]},
            DataError,
            "no column of the log can be a label.*as in tasks income=high",
        ),
        ({"data": shop().head(20)}, DataError, "20 rows are too few to split"),
        (
            {"data": {"train": shop(), "dev": shop()}},
            DataError,
            "expected splits train, validation and test.*train, dev",
        ),
        ({"data": {"test": shop()}}, DataError, "train at least; got test"),
    ],
)
def test_what_cannot_be_fitted_is_named_and_leaves_nothing(
    here: Path, arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    arguments = {"data": shop(), "run_dir": "run"} | arguments

    with pytest.raises(kind, match=message):
        recmoe.fit(arguments.pop("data"), quiet=True, **arguments)

    assert list(here.iterdir()) == []


def test_folder_that_is_in_use_is_refused(here: Path) -> None:
    (here / "run-log").mkdir()
    (here / "run-log/train.parquet").touch()

    with pytest.raises(
        TrainingError, match=r"run-log is there already; choose another run_dir, or go on with recmoe\.train"
    ):
        recmoe.fit(shop(), run_dir="run")


def test_stopped_training_says_how_to_go_on(here: Path) -> None:
    def press_stop() -> None:
        while not (here / "run/metrics.jsonl").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    user = threading.Thread(target=press_stop, daemon=True)
    changes = [*QUICK, "training.epochs=100000", "training.early_stopping=null"]
    user.start()

    with pytest.raises(
        TrainingError, match=r"stopped at step [\d,]+; go on with recmoe\.train\(config, 'run', resume=True\)"
    ):
        recmoe.fit(shop(), run_dir="run", overrides=[*changes, "tracking={kind: none}"], quiet=True)
    user.join()
