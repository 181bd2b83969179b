"""What a first model is measured against: fair baselines, paired intervals, outcomes that init missed."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import first_model
from benchmarks.first_model import Log, Row, find_log, measure, table
from benchmarks.outsiders import Outsiders, Target, column_kind, one_hot, outsider_columns
from recmoe.data.splits import SPLITS, Split
from recmoe.data.synthetic import auc
from recmoe.errors import DataError


def user_log(num_rows: int, seed: int) -> tuple[pa.Table, np.ndarray]:
    """Half of the users like most things; the number says nothing."""
    rng = np.random.default_rng(seed)
    user = rng.integers(20, size=num_rows)
    liked = (rng.random(num_rows) < np.where(user < 10, 0.9, 0.1)).astype(float)
    return pa.table({"user": user, "number": rng.normal(size=num_rows)}), liked


def test_one_hot_has_a_column_per_value_bin_and_part_of_a_list() -> None:
    train = pa.table({"id": ["a", "b", "a", None], "list": ["x|y", "y", None, "x"], "number": [1.0, 2.0, 3.0, None]})
    test = pa.table({"id": ["b", "new", None, "a"], "list": ["y|new", "x", "", None], "number": [9.0, 1.0, None, 2.0]})

    made = one_hot({"train": train, "validation": test, "test": test}, {"id": "id", "list": "list", "number": "number"})

    assert made["train"][:, :2].toarray().tolist() == [[1, 0], [0, 1], [1, 0], [0, 0]]
    assert made["test"][:, :2].toarray().tolist() == [[0, 1], [0, 0], [0, 0], [1, 0]]
    assert made["test"][:, 2:4].toarray().tolist() == [[0, 1], [1, 0], [0, 0], [0, 0]]
    assert made["test"][:, 4:].toarray().sum(axis=1).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("name", ["logistic", "lightgbm"])
@pytest.mark.filterwarnings("ignore:The argument 'eval_set' is deprecated")
def test_baseline_learns_the_users_and_is_cached(name: str, tmp_path: Path) -> None:
    logs = {split: user_log(800, seed) for seed, split in enumerate(SPLITS)}
    splits: dict[Split, pa.Table] = {split: rows for split, (rows, _) in logs.items()}
    target = Target(True, {split: liked for split, (_, liked) in logs.items()})
    columns = outsider_columns(splits["train"], left_out=[])

    score_N = Outsiders(splits, columns, tmp_path).predict(name, target)
    (kept,) = tmp_path.iterdir()
    np.save(kept, np.arange(800.0))

    # The truth reaches .9.
    assert columns == {"user": "id", "number": "number"}
    assert auc(target.labels["test"] == 1, score_N) > 0.85
    assert list(Outsiders(splits, columns, tmp_path).predict(name, target)) == list(range(800))


def test_kind_of_a_column_is_seen_in_its_values() -> None:
    columns = {
        "id": pa.chunked_array([["a", "b"]]),
        "number": pa.chunked_array([np.arange(100)]),
        "list": pa.chunked_array([[[1], [2]]]),
    }

    assert {name: column_kind(column) for name, column in columns.items()} == {name: name for name in columns}


def test_mark_says_how_far_a_model_is_below() -> None:
    common = {"log": "l", "kind": "mmoe", "task": "t", "metric": "auc", "num_positive": 9, "best": None,
              "logistic": 0.7, "lightgbm": 0.6, "low": 0.65, "high": 0.75, "difference_low": -0.1,
              "seconds": 1.0}  # fmt: skip

    rows = [
        Row(**common, models=models, difference_high=difference_high)  # type: ignore[arg-type]
        for models, difference_high in (([0.72, 0.7], 0.1), ([0.66], -0.01), ([0.6], -0.05))
    ]

    assert [row.mark for row in rows] == ["", "<", "<<"]
    assert table(rows).splitlines()[-1].endswith("| 0.650 to 0.750 | 0.600 | 0.600 | -0.100 to -0.050 | << |")


def test_log_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECMOE_DATA", raising=False)
    options = first_model.parse_options(["--to", str(tmp_path)])

    with pytest.raises(DataError, match="no log is called shop; there are short_video, shop_events"):
        find_log("shop", options)
    with pytest.raises(DataError, match="census needs the published files; set RECMOE_DATA to the folder"):
        find_log("census", options)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The argument 'eval_set' is deprecated")
def test_log_is_measured_with_outcomes_that_init_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(first_model, "CACHE", tmp_path / "cache")
    rows, liked = user_log(1500, 0)
    odd = (np.random.default_rng(1).random(1500) < 0.3).astype(int)
    rows = rows.append_column("liked", pa.array(liked.astype(int))).append_column("oddity", pa.array(odd))
    pq.write_table(rows, tmp_path / "log.parquet")
    options = first_model.parse_options(
        ["--to", str(tmp_path / "to"), "--seeds", "0,1", "--kinds", "mmoe", "--override", "training.epochs=2"]
    )

    found = measure(Log("log", str(tmp_path / "log.parquet"), outcomes=("liked", "oddity")), options)

    assert "by hand tasks: oddity; init made features of oddity" in capsys.readouterr().out
    assert sorted(row.task for row in found) == ["liked", "oddity"]
    by_task = {row.task: row for row in found}
    assert by_task["liked"].logistic > 0.8
    assert by_task["oddity"].low < 0.5 < by_task["oddity"].high
    assert [len(row.models) for row in found] == [2, 2]
