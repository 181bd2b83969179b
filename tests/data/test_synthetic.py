"""The synthetic log: same seed, same rows; purchases only after clicks; the truth is the best that can be reached."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from recmoe.data.synthetic import NUM_CANDIDATES, SyntheticLog, auc, best_reachable, write_synthetic
from recmoe.errors import DataError
from recmoe.experiment import load_experiment
from recmoe.tasks.spaces import label_columns


def read(folder: Path, split: str) -> pa.Table:
    return pq.read_table(folder / f"{split}.parquet")


def test_same_seed_gives_the_same_rows() -> None:
    first = next(SyntheticLog(50, seed=3).chunks())

    again = next(SyntheticLog(50, seed=3).chunks())
    other = next(SyntheticLog(50, seed=4).chunks())

    assert first.table.equals(again.table)
    assert not first.table.equals(other.table)


def test_purchase_and_seconds_need_a_click() -> None:
    table = next(SyntheticLog(2000).chunks()).table

    clicked = table["click"].to_numpy() == 1
    bought = table["purchase"].to_numpy() == 1
    watched = pc.is_valid(table["watch_s"]).to_numpy()

    assert 0.10 < clicked.mean() < 0.16
    assert 0.10 < bought.sum() / clicked.sum() < 0.20
    assert not (bought & ~clicked).any()
    assert (watched == clicked).all()


def test_request_shows_ten_different_items_to_one_user() -> None:
    table = next(SyntheticLog(200).chunks()).table

    requests = table["request_id"].to_numpy().reshape(-1, NUM_CANDIDATES)
    users = np.array(table["user_id"].to_pylist()).reshape(-1, NUM_CANDIDATES)
    items = np.array(table["item_id"].to_pylist()).reshape(-1, NUM_CANDIDATES)

    assert (requests == np.arange(200)[:, None]).all()
    assert (users == users[:, :1]).all()
    assert all(len(set(row)) == NUM_CANDIDATES for row in items)
    assert table["position"].to_pylist()[:NUM_CANDIDATES] == list(range(1, 11))


def test_first_place_is_clicked_most() -> None:
    table = next(SyntheticLog(3000).chunks()).table

    rates = table["click"].to_numpy().reshape(-1, NUM_CANDIDATES).mean(axis=0)

    assert rates[0] > 2 * rates[4] > 2 * rates[9]


def test_few_ids_make_up_much_of_the_log() -> None:
    table = next(SyntheticLog(3000).chunks()).table

    counts = np.sort(pc.value_counts(table["item_id"]).field("counts").to_numpy())[::-1]

    assert counts[:100].sum() > 0.25 * counts.sum()


def test_probabilities_are_calibrated() -> None:
    rows = next(SyntheticLog(4000).chunks())
    clicked = rows.table["click"].to_numpy() == 1

    error_in_deviations = (clicked.sum() - rows.click_N.sum()) / np.sqrt((rows.click_N * (1 - rows.click_N)).sum())

    assert abs(error_in_deviations) < 4


def test_splits_are_whole_requests_in_the_order_of_time(tmp_path: Path) -> None:
    result = write_synthetic(tmp_path, num_rows=3000, seed=1)

    tables = {split: read(tmp_path, split) for split in ("train", "validation", "test")}

    assert {split: table.num_rows for split, table in tables.items()} == {"train": 2400, "validation": 300, "test": 300}
    assert result.num_rows == {"train": 2400, "validation": 300, "test": 300}
    assert pc.max(tables["train"]["request_id"]).as_py() < pc.min(tables["validation"]["request_id"]).as_py()
    assert pc.max(tables["validation"]["timestamp"]).as_py() <= pc.min(tables["test"]["timestamp"]).as_py()


def test_truth_is_written_beside_the_splits(tmp_path: Path) -> None:
    result = write_synthetic(tmp_path, num_rows=20_000, seed=0)

    stored = json.loads((tmp_path / "truth.json").read_text())

    assert stored == result.truth
    assert set(stored) == {"ctr.auc[all]", "cvr.auc[click]", "ctcvr.auc[all]", "watch.mae[click]", "watch.rmse[click]"}
    assert 0.75 < stored["ctr.auc[all]"] < 0.95
    assert result.config == tmp_path / "config.yaml"


def test_config_loads_and_names_columns_of_the_log(tmp_path: Path) -> None:
    result = write_synthetic(tmp_path, num_rows=1000)

    config = load_experiment(result.config)

    columns = set(read(tmp_path, "train").column_names)
    assert {feature.column or name for name, feature in config.inputs.features.items()} <= columns
    assert {label.column for label in label_columns(config.tasks)} <= columns
    measured = config.evaluation.metric_names(config.tasks, has_groups=True)
    assert set(result.truth) <= set(measured)


def test_no_other_score_beats_the_true_probability() -> None:
    rows = list(SyntheticLog(4096 * 2).chunks())
    clicked = np.concatenate([part.table["click"].to_numpy() == 1 for part in rows])
    position = np.concatenate([part.table["position"].to_numpy() for part in rows])

    truth = best_reachable(rows)

    assert auc(clicked, -position.astype(float)) + 0.05 < truth["ctr.auc[all]"]
    assert truth["ctr.auc[all]"] == pytest.approx(auc(clicked, np.concatenate([part.click_N for part in rows])))


def test_auc_counts_ties_half() -> None:
    is_positive = np.array([True, False, True, False])

    assert auc(is_positive, np.array([0.9, 0.5, 0.5, 0.1])) == pytest.approx(3.5 / 4)
    assert np.isnan(auc(np.array([True, True]), np.array([0.1, 0.2])))


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least 1000 rows, got num_rows=90"):
        write_synthetic(tmp_path, num_rows=90)
