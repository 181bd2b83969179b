"""A search in Ray's processes: what it finds, what it survives, what it leaves."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.ray_session import ray_session
from pipelines.tuning.tune import TuneResult, tune
from recmoe.errors import TrainingError
from recmoe.experiment import load_experiment

pytestmark = [
    pytest.mark.slow,
    # Ray's own code, and sockets that it leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SPACE = "tables.optimizer.lr: {choices: [0.00001, 0.3, 0.5]}\nmodel.architecture.kind: {choices: [mmoe, ple]}\n"


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    """One Ray for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")
        with ray_session(num_workers=2):
            yield


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("space") / "space.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="module")
def found(shelf: Path, space: Path, session: None, tmp_path_factory: pytest.TempPathFactory) -> TuneResult:
    """Six trials, two at a time."""
    del session
    root = tmp_path_factory.mktemp("tuning") / "found"
    return tune(shelf, root, space=space, num_trials=6, num_concurrent=2, is_quiet=True)


def when(is_so: Callable[[], bool], action: Callable[[], object]) -> threading.Thread:
    """Does something as soon as something is so."""

    def wait() -> None:
        deadline_s = time.monotonic() + 120
        while not is_so() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        action()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_search_starts_with_the_config_and_finds_the_rate_that_learns(found: TuneResult) -> None:
    first, best = next(record for record in found.records if record.number == 0), found.best

    assert best is not None
    assert (first.number, first.values["tables.optimizer.lr"], first.status) == (0, 0.00001, "finished")
    assert first.score is not None
    assert first.score < 0.01
    assert best.score is not None
    assert best.score > 0.05
    assert best.values["tables.optimizer.lr"] in (0.3, 0.5)


def test_trial_is_a_training_run_without_report_and_bundle(found: TuneResult) -> None:
    folder = found.folder.trial(0)

    curves = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    validations = [line["val/score"] for line in curves if "val/score" in line]
    assert validations == next(record.curve for record in found.records if record.number == 0)
    # Tables that hardly learn may leave experts alike, which a run writes down.
    assert {path.name for path in folder.iterdir()} - {"alarms.json"} == {
        "config.json",
        "facts.json",
        "metrics.jsonl",
        "plan.json",
        "state.json",
    }


def test_best_config_is_the_config_with_what_the_best_trial_changed(found: TuneResult, shelf: Path) -> None:
    best = found.best
    assert best is not None

    config = load_experiment(found.folder.best)

    assert config.tables.optimizer.lr == best.values["tables.optimizer.lr"]
    assert config.model.architecture.kind == best.values["model.architecture.kind"]
    assert config.data == load_experiment(shelf).data
    assert "What mattered" in found.folder.page.read_text()
    assert not found.folder.work.exists()


def test_trial_that_fails_is_kept_and_others_go_on(
    shelf: Path, session: None, tmp_path: Path, mlflow_folder: Path
) -> None:
    del session
    (tmp_path / "space.yaml").write_text("training.dense_optimizer.lr: {choices: [0.01, 1.0e+30]}")
    store = f"sqlite:///{mlflow_folder}/mlflow.db"

    result = tune(
        shelf,
        tmp_path / "search",
        overrides=[f"tracking={{kind: mlflow, uri: '{store}', system_metrics: false}}", "training.clip_norm=null"],
        space=tmp_path / "space.yaml",
        num_trials=3,
        is_quiet=True,
    )

    failed = [record for record in result.records if record.status == "failed"]
    assert len(result.records) == 3
    assert failed
    assert all("is not finite; lower training.dense_optimizer.lr" in str(record.error) for record in failed)
    assert all(record.values["training.dense_optimizer.lr"] == 0.01 for record in result.records if record.score)
    client = MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("recmoe").experiment_id])
    whole = next(run for run in runs if run.data.tags["mlflow.runName"] == "shelf tune")
    trials = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == whole.info.run_id]
    assert len(trials) == 3
    assert sorted(run.info.status for run in trials).count("FAILED") == len(failed)
    assert {path.path for path in client.list_artifacts(whole.info.run_id)} >= {"best.yaml", "tune.html"}
    first = next(run for run in trials if run.data.tags["mlflow.runName"] == "trial 0")
    assert first.data.params["tables.optimizer.lr"] == "1e-05"
    curve = client.get_metric_history(first.info.run_id, "val/score")
    assert [point.value for point in curve] == next(r.curve for r in result.records if r.number == 0)


def test_config_that_cannot_be_trained_ends_the_search(shelf: Path, space: Path, session: None, tmp_path: Path) -> None:
    del session

    with pytest.raises(TrainingError, match=r"the config as it stands cannot be trained, so no other .* not finite"):
        tune(
            shelf,
            tmp_path / "search",
            overrides=["training.dense_optimizer.lr=1e30", "training.clip_norm=null"],
            space=space,
            is_quiet=True,
        )


def test_ctrl_c_keeps_what_is_over_and_time_cuts_what_is_running(
    shelf: Path, space: Path, session: None, tmp_path: Path
) -> None:
    del session
    root = tmp_path / "search"
    stopping = when((root / "trials.jsonl").exists, lambda: os.kill(os.getpid(), signal.SIGINT))

    stopped = tune(shelf, root, overrides=["training.epochs=40"], space=space, num_trials=4, is_quiet=True)
    stopping.join()
    cut = tune(
        shelf,
        root,
        overrides=["training.epochs=40"],
        space=space,
        num_trials=40,
        time_s=3.0,
        resume=True,
        is_quiet=True,
    )

    assert stopped.is_interrupted
    assert stopped.records[0].number == 0
    assert len(stopped.records) < 4
    assert not cut.is_interrupted
    assert cut.records[: len(stopped.records)] == stopped.records
    assert len(cut.records) < 40
