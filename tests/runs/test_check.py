from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.config import config_from_dict
from recmoe.errors import DataError
from recmoe.experiment import ExperimentConfig
from recmoe.runs.check import check_data


def config(folder: Path, **splits: dict[str, list[object]]) -> ExperimentConfig:
    """Two columns and two labels; one Parquet file per split."""
    for name, columns in splits.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return config_from_dict(
        ExperimentConfig,
        {
            "name": "small",
            "data": {name: str(folder / f"{name}.parquet") for name in splits},
            "inputs": {"features": {"user": {"kind": "id", "side": "user"}, "price": {"kind": "numeric"}}},
            "tasks": {
                "ctr": {"kind": "binary", "label": "click"},
                "spent": {"kind": "regression", "label": "amount", "space": "click"},
            },
            "training": {"batch_size": 2},
        },
    )


TRAIN: dict[str, list[object]] = {
    "user": ["a", "b", "a", None],
    "price": [1.0, 2.0, 3.0, 4.0],
    "click": [1, 0, 1, 0],
    "amount": [10.0, None, 30.0, None],
}


def test_rows_labels_and_unknown_ids_are_counted_by_split(tmp_path: Path) -> None:
    test: dict[str, list[object]] = {"user": ["a", "z"], "price": [1.0, 2.0], "click": [1, 0], "amount": [5.0, None]}

    found = check_data(config(tmp_path, train=TRAIN, validation=TRAIN, test=test), cache_dir=tmp_path)

    train = found.splits["train"]
    assert (train.num_rows, train.num_files) == (4, 1)
    assert (train.tasks["ctr"].num_rows, train.tasks["ctr"].mean) == (4, 0.5)
    assert (train.tasks["spent"].num_rows, train.tasks["spent"].mean) == (2, 20.0)
    assert found.splits["test"].unknown_shares["user"] == 0.5
    assert found.table_rows == {"user": 3}
    assert found.warnings == ()


def test_what_is_often_a_mistake_is_a_warning(tmp_path: Path) -> None:
    made = config(tmp_path, train=TRAIN, validation=TRAIN)
    nothing = pa.array([None, None], pa.float64())
    validation = pa.table({"user": ["x", "y"], "price": [1.0, 2.0], "click": [0, 0], "amount": nothing})
    pq.write_table(validation, tmp_path / "validation.parquet")
    made = made.model_copy(update={"training": made.training.model_copy(update={"batch_size": 8})})

    found = check_data(made, cache_dir=tmp_path)

    assert found.warnings == (
        "validation: every label of task ctr is negative; AUC is not defined",
        "validation: no row counts for task spent; its label is missing or its space is empty",
        "validation: 100% of the ids of user are missing or were not seen in training",
        "there is no test split: training will write no report",
        "train: 4 rows are fewer than one batch; lower training.batch_size (8)",
    )


def test_label_that_is_neither_0_nor_1_stops_the_check(tmp_path: Path) -> None:
    made = config(tmp_path, train={**TRAIN, "click": [1, 0, 2, 0]})

    with pytest.raises(DataError, match="click"):
        check_data(made, cache_dir=tmp_path)
