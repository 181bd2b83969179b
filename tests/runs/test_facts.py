"""What a run knows of its rows before the first step."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recmoe.config import config_from_dict
from recmoe.data.parquet import ParquetStream
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.features.encoder import FeatureEncoder
from recmoe.runs import facts
from recmoe.runs.facts import RunFacts, learn_facts
from recmoe.runs.folder import RunFolder
from recmoe.runs.prepare import prepare_run
from recmoe.runs.splits import open_split
from recmoe.runs.train import RunResult


def shop(folder: Path, train: pa.Table, validation: pa.Table | None = None) -> tuple[ExperimentConfig, FeatureEncoder]:
    splits = {"train": train} if validation is None else {"train": train, "validation": validation}
    for name, rows in splits.items():
        pq.write_table(rows, folder / f"{name}.parquet", row_group_size=7)
    config = config_from_dict(
        ExperimentConfig,
        {
            "name": "shop",
            "data": {name: str(folder / f"{name}.parquet") for name in splits},
            "inputs": {
                "features": {
                    "user": {"kind": "id", "side": "user"},
                    "tags": {"kind": "id_list", "side": "user"},
                    "age": {"kind": "numeric", "side": "user", "forms": ["bucket"]},
                }
            },
            "tasks": {
                "ctr": {"kind": "binary", "label": "click"},
                "watch": {"kind": "regression", "label": "seconds", "space": "click", "outside_space": "ignore"},
            },
        },
    )
    return config, FeatureEncoder.fit(config.inputs, [train], config.task_set().label_columns)


def learned(folder: Path, train: pa.Table, validation: pa.Table | None = None) -> RunFacts:
    config, encoder = shop(folder, train, validation)
    run = RunFolder(folder / "run")

    def split(name: Any) -> ParquetStream:
        return open_split(config, run, name)

    return learn_facts(config, encoder, split("train"), None if validation is None else split("validation"))


def rows_of(clicks: list[int], **columns: list[Any]) -> pa.Table:
    num_rows = len(clicks)
    base: dict[str, Any] = {
        "user": [f"u{i % 3}" for i in range(num_rows)],
        "tags": [["red"]] * num_rows,
        "age": [float(i) for i in range(num_rows)],
        "click": clicks,
        "seconds": [float(i) for i in range(num_rows)],
    }
    return pa.table({**base, **columns})


def test_starts_are_those_of_the_training_split(tmp_path: Path) -> None:
    train = rows_of([1, 0, 0, 1, 0, 0, 0, 0])

    found = learned(tmp_path, train)

    ctr, watch = found.starts
    assert ctr.logit == pytest.approx(math.log(2.5 / 6.5))
    # Seconds 0 and 3 were clicked.
    assert (watch.logit, watch.unit) == (pytest.approx(1.5), pytest.approx(1.5))
    assert found.unknown_shares == {}


def test_share_of_new_ids_leaves_missing_values_and_numbers_out(tmp_path: Path) -> None:
    validation = rows_of(
        [0] * 4,
        user=["u0", "new", None, "u1"],
        tags=[["red", "green"], ["blue"], None, []],
        age=[None, 1.0, None, 2.0],
    )

    found = learned(tmp_path, rows_of([1, 0, 0, 1]), validation)

    # One of three users, two of three tags.
    assert found.unknown_shares == {"user": pytest.approx(1 / 3), "tags": pytest.approx(2 / 3)}


def test_long_log_is_known_by_blocks_from_all_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "CHUNK_ROWS", 10)
    monkeypatch.setattr(facts, "MAX_LABEL_ROWS", 30)
    monkeypatch.setattr(facts, "MAX_UNKNOWN_ROWS", 20)
    # Blocks at the rows 0, 45 and 90 of 100; 0 and 90 of validation.
    clicks = [int(i < 10 or 45 <= i < 50) for i in range(100)]
    users = ["u0" if i < 95 else "new" for i in range(100)]

    found = learned(tmp_path, rows_of(clicks), rows_of(clicks, user=users))

    assert found.starts[0].logit == pytest.approx(math.log(15.5 / 15.5))
    assert found.unknown_shares["user"] == pytest.approx(5 / 20)


def test_facts_are_kept_in_the_run_folder(finished: tuple[ExperimentConfig, RunResult], tmp_path: Path) -> None:
    _, result = finished

    found = RunFacts.read(result.folder)

    ranker = ModelBundle.load(result.folder.bundle).model
    assert torch.equal(ranker.start_T, torch.tensor([start.logit for start in found.starts]))
    assert torch.equal(ranker.unit_T, torch.ones(2))
    folder = RunFolder(tmp_path)
    found.write(folder)
    assert RunFacts.read(folder) == found


def test_other_labels_are_other_facts_before_the_first_step(
    make_experiment: Callable[..., ExperimentConfig], tmp_path: Path
) -> None:
    prepare_run(make_experiment(tmp_path), tmp_path / "run", resume=False)
    before = RunFacts.read(RunFolder(tmp_path / "run"))

    more = make_experiment(tmp_path, "tasks.when={kind: regression, label: visit}")
    prepare_run(more, tmp_path / "run", resume=False)

    after = RunFacts.read(RunFolder(tmp_path / "run"))
    assert after.starts[:2] == before.starts
    # Five rows of each of forty visits.
    assert after.starts[2].logit == pytest.approx(19.5)
