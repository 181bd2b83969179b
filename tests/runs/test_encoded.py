"""Tests of encoded rows in a run: when they are kept, that they are read, and that nothing else changes."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.data.parquet import ParquetStream
from recmoe.experiment import ExperimentConfig
from recmoe.runs.encoded import open_cache
from recmoe.runs.folder import RunFolder
from recmoe.runs.train import RunResult, prepare
from tests.parity.of_runs import assert_same_report

Train = Callable[..., RunResult]
ExperimentMaker = Callable[..., ExperimentConfig]

TIMES = ("train/samples_per_s", "train/data_wait_share")


def curves(folder: RunFolder) -> list[str]:
    """Every line of the curves, without times."""
    lines = map(json.loads, folder.metrics.read_text().splitlines())
    return [repr({name: value for name, value in line.items() if name not in TIMES}) for line in lines]


def prepared(config: ExperimentConfig, root: Path) -> tuple[RunFolder, list[str]]:
    """A prepared run, and the splits that it has encoded."""
    folder = RunFolder(root)
    folder.root.mkdir()
    cache = open_cache(config, folder, prepare(config, folder))
    splits = ("train", "validation", "test")
    streams = {split: config.data.build(split, seed=config.seed, cache_dir=folder.cache) for split in splits}
    return folder, [split for split, stream in streams.items() if cache.open(stream) is not None]


def test_run_from_the_cache_is_the_run_from_the_files(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ("training.epochs=2", "training.evaluate_every=10", "evaluation.slices=[hour]")
    from_files = train(make_experiment(tmp_path, *changes, "data.encoded_cache=off"), tmp_path / "files")
    # Once training has begun, only the slices' column is read from the files.
    read: set[str] = set()
    blocks = ParquetStream._blocks

    def noted(stream: ParquetStream, *arguments: Any) -> Any:
        if (tmp_path / "cached" / "plan.json").exists():
            read.update(arguments[-1] or stream.arrow_schema.names)
        return blocks(stream, *arguments)

    monkeypatch.setattr(ParquetStream, "_blocks", noted)
    monkeypatch.setattr("recmoe.runs.worker._Job.write_bundle", lambda _: None)
    from_cache = train(make_experiment(tmp_path, *changes, "data.encoded_cache=on"), tmp_path / "cached")

    assert read == {"hour"}
    assert_same_report(from_cache.report, from_files.report)
    assert curves(from_cache.folder) == curves(from_files.folder)
    assert len(curves(from_cache.folder)) > 5


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ((), ["train", "validation", "test"]),
        (("data.encoded_cache=off",), []),
        (("training.max_steps=24",), []),
        (("training.max_steps=25",), ["train", "validation", "test"]),
        (("training.max_steps=1", "data.encoded_cache=on"), ["train", "validation", "test"]),
        (
            ("training.max_steps=1", "inputs.features.hour={kind: id, encoding: {kind: index, num_ids: 24}}"),
            ["train", "validation", "test"],
        ),
    ],
)
def test_rows_are_kept_where_every_row_is_encoded_anyway(
    changes: tuple[str, ...], kept: list[str], make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path, *changes)

    _, found = prepared(config, tmp_path / "run")

    assert found == kept


def test_rows_are_not_kept_on_a_disk_without_room(
    make_experiment: ExperimentMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = make_experiment(tmp_path)
    monkeypatch.setattr("recmoe.runs.encoded.DISK_SHARE", 1e-9)

    _, found = prepared(config, tmp_path / "run")

    assert found == []
    assert re.search(r"encoded has \d+\.\d GB free, .* too little for encoded rows of 0\.0 GB: rows are", caplog.text)
    assert "epoch; set data.cache_dir to a folder with room, or data.encoded_cache to on" in caplog.text


def test_finished_run_keeps_its_rows_only_in_a_folder_that_is_shared(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path
) -> None:
    alone = train(make_experiment(tmp_path, "training.max_steps=25"), tmp_path / "alone")
    shared = make_experiment(tmp_path, "training.max_steps=25", f"data.cache_dir={tmp_path / 'shared'}")
    train(shared, tmp_path / "first")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("rows.bin")}
    train(shared, tmp_path / "second")

    assert not alone.folder.encoded.exists()
    assert len(before) == 3
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("rows.bin")} == before


def test_rows_that_are_lost_before_training_are_encoded_on_the_way(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_experiment(tmp_path)
    whole = train(config, tmp_path / "whole")

    def lost(config: ExperimentConfig, folder: RunFolder, **options: Any) -> None:
        prepare(config, folder, **options)
        shutil.rmtree(folder.encoded)

    monkeypatch.setattr("recmoe.runs.train.prepare", lost)
    result = train(config, tmp_path / "run")

    assert_same_report(result.report, whole.report)
    assert curves(result.folder) == curves(whole.folder)


def test_resumed_run_makes_damaged_rows_again(
    train: Train, make_experiment: ExperimentMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(step: int, values: Mapping[str, float]) -> None:
        if step == 10 and "train/lr" in values:
            os.kill(os.getpid(), signal.SIGTERM)

    config = make_experiment(tmp_path)
    unbroken = train(config, tmp_path / "unbroken")
    stopped = train(config, tmp_path / "run", event=stop)
    for path in stopped.folder.encoded.rglob("rows.bin"):
        data = bytearray(path.read_bytes())
        data[-5] ^= 255
        path.write_bytes(data)

    result = train(config, tmp_path / "run", resume=True)

    assert stopped.is_interrupted
    assert "the content of rows.bin has changed" in caplog.text
    assert curves(result.folder) == curves(unbroken.folder)


def test_rows_of_an_encoder_that_is_learnt_anew_are_removed(
    make_experiment: ExperimentMaker, shop_log: pa.Table, tmp_path: Path
) -> None:
    config = make_experiment(tmp_path)
    folder, _ = prepared(config, tmp_path / "run")
    before = {path.name for path in folder.encoded.iterdir()}
    pq.write_table(shop_log.slice(0, 100), tmp_path / "train.parquet")

    prepare(config, folder)

    after = {path.name for path in folder.encoded.iterdir()}
    assert len([name for name in after if not name.startswith(".")]) == 3
    assert before.isdisjoint(after)
