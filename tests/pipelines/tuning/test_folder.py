"""What a search keeps, and what it refuses to go on with."""

from pathlib import Path

import pytest

from pipelines.tuning.folder import TrialRecord, TuneFolder, best_of
from recmoe.config import config_from_dict, dump_config
from recmoe.errors import TrainingError
from recmoe.experiment import ExperimentConfig

SPACE = {"training.batch_size": {"choices": [8, 16]}}


@pytest.fixture
def folder(base: ExperimentConfig, tmp_path: Path) -> TuneFolder:
    folder = TuneFolder(tmp_path / "search")
    folder.start(base, SPACE, resume=False)
    return folder


def test_records_come_back_as_they_were(folder: TuneFolder) -> None:
    record = TrialRecord(0, {"training.batch_size": 8}, "finished", 0.7, [0.6, 0.7], {"ctr.auc[all]": 0.7}, 1.5)

    folder.add(record)

    assert folder.records() == [record]


def test_line_that_a_killed_process_left_half_is_written_over(folder: TuneFolder) -> None:
    folder.add(TrialRecord(0, {}, "finished", 0.7))
    with folder.records_file.open("a") as file:
        file.write('{"number": 1, "val')

    folder.add(TrialRecord(2, {}, "stopped", 0.5))

    assert [record.number for record in folder.records()] == [0, 2]


def test_best_is_the_earlier_of_two_equal_trials_and_never_a_failed_one() -> None:
    records = [
        TrialRecord(0, {}, "finished", 0.5),
        TrialRecord(1, {}, "finished", 0.7),
        TrialRecord(2, {}, "stopped", 0.7),
        TrialRecord(3, {}, "failed", None),
    ]

    best = best_of(records)

    assert best is records[1]
    assert best_of(records[3:]) is None


def test_search_is_gone_on_with_only_where_that_is_asked_for(folder: TuneFolder, base: ExperimentConfig) -> None:
    with pytest.raises(TrainingError, match=r"search holds a search already; go on with --resume or choose another"):
        folder.start(base, SPACE, resume=False)

    folder.start(base, SPACE, resume=True)


def test_search_of_another_config_or_space_is_refused(folder: TuneFolder, base: ExperimentConfig) -> None:
    other = config_from_dict(ExperimentConfig, dump_config(base), overrides=["training.epochs=9"])

    with pytest.raises(TrainingError, match=r"started with another config: training\.epochs; resume with the same"):
        folder.start(other, SPACE, resume=True)
    with pytest.raises(TrainingError, match=r"another search space: training\.batch_size\.choices"):
        folder.start(base, {"training.batch_size": {"choices": [8]}}, resume=True)


def test_folder_with_other_files_is_refused(base: ExperimentConfig, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(TrainingError, match=r"is not empty and holds no search; choose another --to"):
        TuneFolder(tmp_path).start(base, SPACE, resume=True)


def test_damaged_files_are_named(folder: TuneFolder) -> None:
    folder.records_file.write_text("{}\n")
    with pytest.raises(TrainingError, match=r"trials\.jsonl:1  the line is damaged .*; remove it and resume"):
        folder.records()

    (folder.root / "tune.json").write_text("{")
    with pytest.raises(TrainingError, match=r"tune\.json is damaged: .*; start afresh in another --to"):
        _ = folder.config


def test_scores_on_other_rows_are_not_compared(folder: TuneFolder) -> None:
    folder.check_rows(["a", "b"])
    folder.check_rows(["a", "b"])

    with pytest.raises(TrainingError, match=r"the files of train or validation have changed since the search began"):
        folder.check_rows(["a", "c"])
