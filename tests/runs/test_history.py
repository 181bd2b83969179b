"""A run whose users have a history, from the log to what serves: every way in gives the same scores."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.errors import DataError, RequestError
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker, RankRequest
from recmoe.ranking.example import requests_of_rows
from recmoe.registry.pyfunc import BundleModel, signature
from recmoe.runs.predictions import write_predictions
from recmoe.runs.train import RunResult
from serving.docs_page import example_request

OVERRIDES = (
    "inputs.features.history={kind: sequence, time: seen_at, now: clock, max_length: 4, columns: "
    "{item: {column: seen, table: item_id}, word: {column: seen_words, table: tags}}, "
    "encoder: {kind: transformer, width: 8, heads: 2, layers: 1, hidden: 8}}",
    "training.max_steps=12",
    "data.encoded_cache=on",
    "evaluation.baselines=[logistic_regression]",
)


@pytest.fixture(scope="module")
def log(shop_log: pa.Table) -> pa.Table:
    """Users with up to five items that they saw, or none; some items have no word."""
    random = np.random.default_rng(1)
    lengths = [None if row % 9 == 8 else int(random.integers(0, 6)) for row in range(40)]
    # A list's five rows have one user, and so one history.
    seen = [None if n is None else random.integers(100, 130, n).tolist() for n in lengths]
    words = [None if n is None else random.choice(["red", "blue", None], n).tolist() for n in lengths]
    times = [None if n is None else np.sort(random.random(n)).tolist() for n in lengths]
    columns = {"seen": seen, "seen_words": words, "seen_at": times, "clock": [1.5] * 40}
    visit = shop_log["visit"].to_numpy()
    user = pa.array([f"u{number % 20}" for number in visit])
    rows = shop_log.set_column(shop_log.column_names.index("user_id"), "user_id", user)
    for name, values in columns.items():
        rows = rows.append_column(name, pa.array(values).take(pa.array(visit)))
    return rows


@pytest.fixture(scope="module")
def config(
    log: pa.Table, make_experiment: Callable[..., ExperimentConfig], tmp_path_factory: pytest.TempPathFactory
) -> ExperimentConfig:
    """Of files with the history."""
    folder = tmp_path_factory.mktemp("history")
    for name, rows in {"train": log, "validation": log.slice(0, 80), "test": log.slice(80)}.items():
        pq.write_table(rows, folder / f"{name}.parquet", row_group_size=60)
    return make_experiment(folder, *OVERRIDES)


@pytest.fixture(scope="module")
def run(
    config: ExperimentConfig, train: Callable[..., RunResult], tmp_path_factory: pytest.TempPathFactory
) -> RunResult:
    """Finished."""
    return train(config, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def ranker(run: RunResult) -> Ranker:
    """Has passed the replay."""
    return Ranker.load(run.folder.bundle)


def test_requests_get_the_scores_of_rows(ranker: Ranker, log: pa.Table) -> None:
    rows = log.slice(0, 60)

    requests = requests_of_rows(ranker.bundle.encoder.schema, rows)
    responses = [ranker.rank(RankRequest.parse(request)) for request in requests]

    of_rows = sorted(ranker.score(rows)[:, 0].tolist())
    of_requests = sorted(item.tasks["ctr"] for response in responses for item in response.items)
    np.testing.assert_allclose(of_requests, of_rows, atol=1e-5)


def test_history_changes_what_is_predicted(ranker: Ranker, log: pa.Table) -> None:
    rows = log.slice(0, 5)
    empty = rows
    for name in ("seen", "seen_words", "seen_at"):
        empty = empty.set_column(rows.column_names.index(name), name, pa.nulls(5, rows.schema.field(name).type))

    assert len(rows["seen"][0]) > 0
    assert np.abs(ranker.score(rows) - ranker.score(empty)).max() > 1e-4


def test_rows_that_were_encoded_before_give_the_same_run(
    config: ExperimentConfig, run: RunResult, log: pa.Table, train: Callable[..., RunResult], tmp_path: Path
) -> None:
    data = config.data.model_copy(update={"encoded_cache": "off"})

    anew = train(config.model_copy(update={"data": data}), tmp_path / "run")

    predicted = [ModelBundle.load(result.folder.bundle).predict(log) for result in (run, anew)]
    assert predicted[0].tobytes() == predicted[1].tobytes()


def test_predictions_of_a_file_are_those_of_its_rows(ranker: Ranker, log: pa.Table, tmp_path: Path) -> None:
    pq.write_table(log.slice(0, 30), tmp_path / "rows.parquet")

    write_predictions(ranker, [str(tmp_path / "rows.parquet")], tmp_path / "predicted.parquet")

    found = pq.read_table(tmp_path / "predicted.parquet")["ctr"].to_numpy()
    np.testing.assert_allclose(found, ranker.score(log.slice(0, 30))[:, 0], atol=1e-6)


def test_mlflow_model_takes_lists_and_gives_the_same_scores(ranker: Ranker, log: pa.Table) -> None:
    frame = log.slice(0, 20).to_pandas()

    predicted = BundleModel(ranker).predict(frame)

    np.testing.assert_allclose(predicted[list(ranker.task_names)], ranker.score(log.slice(0, 20)), atol=1e-6)
    types = {column.name: str(column.type) for column in signature(ranker).inputs}
    assert {name: types[name] for name in ("seen", "seen_words", "seen_at")} == dict.fromkeys(
        ("seen", "seen_words", "seen_at"), "Array(Any)"
    )
    assert types["clock"] == "Any"


def test_unknown_items_of_a_history_are_warned_of(ranker: Ranker) -> None:
    user = {"seen": [100, 999, 998], "seen_words": ["red", "red", "red"], "seen_at": [0, 1, 1], "clock": 1.5}

    response = ranker.rank(RankRequest.parse({"user": user, "candidates": [{"item_id": 101}]}))

    assert [(one.code, one.count) for one in response.warnings if one.feature == "history"] == [("unknown", 2)]


def test_example_of_the_servers_page_has_an_aligned_history(ranker: Ranker) -> None:
    request = example_request(ranker)

    response = ranker.rank(RankRequest.parse(request))

    assert [len(request["user"][name]) for name in ("seen", "seen_words", "seen_at")] == [1, 1, 1]
    assert len(response.items) == 1


def test_history_that_is_not_aligned_is_the_requests_fault(ranker: Ranker) -> None:
    user = {"seen": [100, 101], "seen_words": ["red"], "seen_at": [0, 1]}

    with pytest.raises(RequestError, match=r"^user: columns of feature 'history' .*: 2 in 'seen', 1 in 'seen_words'"):
        ranker.rank(RankRequest.parse({"user": user, "candidates": [{"item_id": 101}]}))


def test_damaged_history_stops_a_run_with_file_and_row(
    log: pa.Table, config: ExperimentConfig, train: Callable[..., RunResult], tmp_path: Path
) -> None:
    times = log["seen_at"].to_pylist()
    times[83] = [0.5] * 9
    wrong = log.set_column(log.column_names.index("seen_at"), "seen_at", pa.array(times))
    pq.write_table(wrong, tmp_path / "train.parquet")
    data = config.data.model_copy(update={"train": (str(tmp_path / "train.parquet"),)})

    with pytest.raises(DataError, match=r"train\.parquet.* unequal lengths in row 83: \d in 'seen', 9 in 'seen_at'"):
        train(config.model_copy(update={"data": data}), tmp_path / "run")
