from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.config import config_from_dict
from recmoe.errors import DataError
from recmoe.experiment import ExperimentConfig
from recmoe.runs.check import DataCheck, check_data


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
                "spent": {"kind": "regression", "label": "amount", "space": "click", "transform": "log1p"},
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
        "validation: 100% of the ids of user are missing or were not seen in training; it tells nothing there: remove "
        "inputs.features.user, and if it names the list of a row, name it in inputs.group",
        "there is no test split: training will write no report",
        "train: 4 rows are fewer than one batch; lower training.batch_size (8)",
    )


@pytest.mark.parametrize(
    ("inputs", "advice"),
    [
        ({"group": "user"}, "; it tells nothing there: remove inputs.features.user (inputs.group goes on naming the"),
        ({"item": "user"}, ""),
    ],
)
def test_id_that_is_never_seen_again_is_kept_where_it_is_needed(
    tmp_path: Path, inputs: dict[str, str], advice: str
) -> None:
    made = config(tmp_path, train=TRAIN, test={**TRAIN, "user": ["w", "x", "y", "z"]})
    made = made.model_copy(update={"inputs": made.inputs.model_copy(update=inputs)})

    found = check_data(made, cache_dir=tmp_path)

    (warning,) = warnings_about(found, "100% of the ids of user")
    assert warning.startswith(f"test: 100% of the ids of user are missing or were not seen in training{advice}")
    assert advice or warning.endswith("training")


def test_label_that_is_neither_0_nor_1_stops_the_check(tmp_path: Path) -> None:
    made = config(tmp_path, train={**TRAIN, "click": [1, 0, 2, 0]})

    with pytest.raises(DataError, match="click"):
        check_data(made, cache_dir=tmp_path)


def shop(folder: Path, **sections: dict[str, object]) -> ExperimentConfig:
    """A thousand rows a split; half of the later videos are new, and rare ones are disliked in training."""
    for number, name in enumerate(("train", "test")):
        row = np.arange(1000)
        is_new = row % 2 == 0
        columns = {
            # In training every second video occurs once.
            "video": np.where(is_new, 10_000 + row + 1000 * number, row % 20),
            "like": np.where(is_new, (row % 4 == 0) if number else (row % 100 == 0), row % 4 == 1).astype(np.int64),
            "share": (row % 5 == 0).astype(np.int64),
            "seconds": 1000.0 * (row % 7),
            "visit": pa.array(row // 10, mask=row % 100 == 0),
        }
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return shop_config(folder, **sections)


def shop_config(folder: Path, **sections: dict[str, object]) -> ExperimentConfig:
    video = {"kind": "id", "encoding": {"kind": "vocabulary", "min_count": 2}}
    return config_from_dict(
        ExperimentConfig,
        {
            "name": "shop",
            "data": {name: str(folder / f"{name}.parquet") for name in ("train", "test")},
            "inputs": {"features": {"video": video}, "group": "visit"},
            "tasks": {
                "like": {"kind": "binary", "label": "like"},
                "share": {"kind": "binary", "label": "share", "space": "like", "outside_space": "ignore"},
                "watch": {"kind": "regression", "label": "seconds"},
            },
            "training": {"batch_size": 100, "epochs": 2},
            **sections,
        },
    )


def warnings_about(found: DataCheck, words: str) -> list[str]:
    return [warning for warning in found.warnings if words in warning]


def test_unknown_ids_whose_labels_differ_from_what_teaches_them_are_told_of(tmp_path: Path) -> None:
    found = check_data(shop(tmp_path), cache_dir=tmp_path)

    assert warnings_about(found, "look up row 0") == [
        "test: 50% of the ids of video are missing or were not seen in training and look up row 0, but the 50% of the "
        "training rows that teach it are not like theirs: mean like 0.020 in training, 0.500 there; lower "
        "inputs.features.video.encoding.min_count (2) to 1, and raise model.unknown_share (0.01) to about 0.1"
    ]


def test_unknown_ids_of_a_history_are_told_of_by_column(tmp_path: Path) -> None:
    shop(tmp_path)
    for name in ("train", "test"):
        table = pq.read_table(tmp_path / f"{name}.parquet")
        seen = pa.array([[f"{name}{number % 5}"] * 2 for number in range(table.num_rows)])
        pq.write_table(table.append_column("seen", seen), tmp_path / f"{name}.parquet")
    history = {"kind": "sequence", "columns": {"video": {"column": "seen"}}}
    config = shop_config(tmp_path, inputs={"features": {"video": {"kind": "id"}, "history": history}})

    found = check_data(config, cache_dir=tmp_path)

    assert found.splits["train"].unknown_shares["history#video"] == 0.0
    assert warnings_about(found, "history#video") == [
        "test: 100% of the ids of history#video are missing or were not seen in training"
    ]


def test_unknown_ids_that_nothing_teaches_are_told_of(tmp_path: Path) -> None:
    video = {"features": {"video": {"kind": "id"}}}

    silent = check_data(shop(tmp_path, inputs=video), cache_dir=tmp_path)
    taught = check_data(shop(tmp_path, inputs=video, model={"unknown_share": 0.3}), cache_dir=tmp_path)

    assert warnings_about(silent, "look up row 0") == [
        "test: 50% of the ids of video are missing or were not seen in training and look up row 0, which learns of 1% "
        "of the training rows; raise model.unknown_share (0.01) to about 0.1"
    ]
    assert warnings_about(taught, "look up row 0") == []


def test_labels_outside_their_space_are_counted(tmp_path: Path) -> None:
    found = check_data(shop(tmp_path), cache_dir=tmp_path)

    assert found.splits["train"].num_outside == {"share": 140}
    assert warnings_about(found, "train: 140 rows with share = 1 lie outside like")


def test_rows_without_a_list_are_counted(tmp_path: Path) -> None:
    found = check_data(shop(tmp_path), cache_dir=tmp_path)

    assert warnings_about(found, "train: 10 of 1,000 rows have no visit (inputs.group)")


def test_warm_up_that_outlasts_the_run_is_told_of(tmp_path: Path) -> None:
    training = {"batch_size": 100, "epochs": 2, "schedule": {"kind": "cosine", "warmup_steps": 20}}

    found = check_data(shop(tmp_path, training=training), cache_dir=tmp_path)
    shorter = check_data(
        shop(tmp_path, training={**training, "schedule": {"kind": "cosine", "warmup_steps": 19}}), cache_dir=tmp_path
    )

    assert warnings_about(found, "train: the warm-up of 20 steps is not shorter than the run of 20")
    assert warnings_about(shorter, "warm-up") == []


def test_verdict_counts_the_warnings(tmp_path: Path) -> None:
    found = check_data(config(tmp_path, train=TRAIN, validation=TRAIN, test=TRAIN), cache_dir=tmp_path)

    assert found.verdict == "every row can be read and encoded; no warnings"
    assert found.to_json()["verdict"] == found.verdict


def test_task_that_no_simple_model_predicts_is_named(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    random = np.random.default_rng(0)

    def split(num_rows: int) -> dict[str, list[object]]:
        user = random.choice(["a", "b"], num_rows)
        return {
            "user": user.tolist(),
            "price": random.random(num_rows).tolist(),
            "click": (random.random(num_rows) < np.where(user == "a", 0.9, 0.1)).astype(int).tolist(),
            "amount": [None] * num_rows,
            "luck": random.integers(0, 2, num_rows).tolist(),
        }

    made = config(tmp_path, train=split(600), validation=split(300), test=split(300))
    tasks = config_from_dict(
        ExperimentConfig,
        {
            **made.model_dump(mode="json"),
            "tasks": {"ctr": {"kind": "binary", "label": "click"}, "lucky": {"kind": "binary", "label": "luck"}},
        },
    )

    found = check_data(tasks, cache_dir=tmp_path, with_baselines=True)

    assert found.baselines is not None
    assert set(found.baselines.values) == {"logistic_regression", "boosted_trees"}
    hopeless = [warning for warning in found.warnings if "no simple model is better than chance" in warning]
    assert len(hopeless) == 1
    assert hopeless[0].startswith("lucky: no simple model is better than chance on the test split (AUC: logistic reg")
    assert check_data(tasks, cache_dir=tmp_path).baselines is None
