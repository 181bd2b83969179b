"""One trial, in this process: what it shares with others, and how it fails."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.tuning.folder import TuneFolder
from pipelines.tuning.trial import prepared, run_trial, trial_config
from recmoe.errors import ConfigError, TrainingError
from recmoe.experiment import ExperimentConfig, load_experiment


def test_trial_reads_no_test_split_and_saves_its_best_alone(base: ExperimentConfig, tmp_path: Path) -> None:
    config = trial_config(base, {"training.batch_size": 64}, tmp_path)

    assert (config.training.batch_size, config.data.test, config.tracking.kind) == (64, (), "none")
    assert config.training.checkpoint_every > 10**6
    assert config.data.cache_dir == str(tmp_path / "cache")


def test_rows_are_prepared_once_for_trials_that_read_them_alike(base: ExperimentConfig, tmp_path: Path) -> None:
    first = prepared(trial_config(base, {}, tmp_path), tmp_path)
    written = first.encoder.stat().st_mtime_ns

    same = prepared(trial_config(base, {"tables.optimizer.lr": 0.5}, tmp_path), tmp_path)
    other = prepared(trial_config(base, {"inputs.width": 8}, tmp_path), tmp_path)

    assert same.root == first.root
    assert same.encoder.stat().st_mtime_ns == written
    assert other.root != first.root


def test_metric_that_is_never_defined_fails_the_trial_in_words(shelf: Path, tmp_path: Path) -> None:
    rows = pq.read_table(shelf.parent / "validation.parquet")
    pq.write_table(rows.filter(rows["click"].to_numpy() == 0), tmp_path / "none.parquet")
    config = load_experiment(shelf, [f"data.validation={tmp_path}/none.parquet", "training.epochs=1"])
    folder = TuneFolder(tmp_path / "search")
    folder.start(config, {}, resume=False)
    settings = {"root": str(folder.root), "number": 0, "values": "{}", "num_threads": 1}

    with pytest.raises(TrainingError, match=r"score is not defined on the validation split"):
        run_trial(settings)

    assert "score is not defined" in (folder.trial(0) / "failure.txt").read_text()


def test_values_that_do_not_fit_together_fail_the_trial(base: ExperimentConfig, tmp_path: Path) -> None:
    folder = TuneFolder(tmp_path / "search")
    folder.start(base, {}, resume=False)
    settings = {"root": str(folder.root), "number": 3, "values": '{"training.epochs": 0}', "num_threads": 1}

    with pytest.raises(ConfigError, match=r"search space  training\.epochs: input should be greater than 0"):
        run_trial(settings)

    assert "training.epochs" in (folder.trial(3) / "failure.txt").read_text()
