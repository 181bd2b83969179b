"""TrialDriver: has Ray Tune run the trials that are left, and keeps what each has shown."""

import logging
import os
import shutil
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path

from pipelines.ray_session import ray_session
from pipelines.tuning.folder import TrialRecord, TuneFolder, best_of
from pipelines.tuning.progress import TuneProgress
from pipelines.tuning.score import Score
from pipelines.tuning.search import Halving, RunningTrial, StopWhenOver, StudySearch
from pipelines.tuning.space import Space, changed
from pipelines.tuning.tracking import TuneTracking
from pipelines.tuning.trial import FAILURE_FILE, run_trial
from recmoe.errors import TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.machine import Machine
from recmoe.runs.folder import RunFolder
from recmoe.training.stop import StopSignal

POLL_S = 0.2
SETTINGS = {
    # Trials are recorded here and in MLflow; Ray's own files would be a third place.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Paths of a config are those of the folder in which the command was started.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # The new output prints a box however quiet it is asked to be.
    "RAY_AIR_NEW_OUTPUT": "0",
}
"""Environment of Ray Tune, unless the caller's says otherwise."""


class TrialDriver:
    """One call's part of a search.

    Args:
        config: the config as it stands.
        folder: where trials are kept; its records are those of earlier calls.
        num_trials: trials of the whole search.
        is_quiet: nothing on the terminal.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        space: Space,
        folder: TuneFolder,
        tracking: TuneTracking,
        *,
        num_trials: int,
        is_quiet: bool,
    ) -> None:
        self._config = config
        self._space = space
        self._folder = folder
        self._tracking = tracking
        self._records = folder.records()
        self._num_left = num_trials - len(self._records)
        self._progress = TuneProgress(num_trials, len(self._records), Score.of(config), space, is_quiet=is_quiet)
        self._failure: str | None = None
        """Why the config as it stands cannot be trained."""

    def run(self, *, num_concurrent: int, time_s: float | None) -> bool:
        """Run trials until there are enough, time is up, or the user stops it; whether the user did.

        Raises:
            TrainingError: the config as it stands cannot be trained.
        """
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        with ray_session(num_workers=num_concurrent), StopSignal() as stop:
            logging.getLogger("ray.tune").setLevel(logging.ERROR)
            resources = _resources(self._config, num_concurrent)
            search = StudySearch(
                self._config,
                self._space,
                self._records,
                settings={"root": str(self._folder.root.resolve()), "num_threads": int(resources["CPU"])},
                started=self._started,
                reported=self._reported,
                ended=self._ended,
            )
            try:
                self._fit(search, stop, time_s, resources, num_concurrent)
                self._cut(search, is_lost=stop.is_requested or self._failure is not None)
            finally:
                self._progress.close()
        if self._failure is not None:
            raise TrainingError(f"the config as it stands cannot be trained, so no other was tried: {self._failure}")
        return stop.is_requested

    def _fit(
        self,
        search: StudySearch,
        stop: StopSignal,
        time_s: float | None,
        resources: Mapping[str, float],
        num_concurrent: int,
    ) -> None:
        """Have Ray Tune run the trials, in a thread: on the main one it would answer Ctrl-C itself."""
        from ray import tune

        training = self._config.training
        is_over = threading.Event()
        ray_files = self._folder.root.resolve() / "ray"
        tuner = tune.Tuner(
            tune.with_resources(run_trial, dict(resources)),
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=Halving(training.epochs if training.evaluate_every is None else None, self._records),
                num_samples=self._num_left,
                max_concurrent_trials=num_concurrent,
                # A worker needs seconds to start, and trials of small logs not many more.
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="trials", storage_path=str(ray_files), verbose=0, stop=StopWhenOver(is_over.is_set)
            ),
        )
        job: Future[None] = Future()

        def fit() -> None:
            try:
                tuner.fit()
            except BaseException as error:
                job.set_exception(error)
            else:
                job.set_result(None)

        started_s = time.monotonic()
        try:
            threading.Thread(target=fit, daemon=True).start()
            while not wait([job], timeout=POLL_S).done:
                is_late = time_s is not None and time.monotonic() - started_s > time_s
                if stop.is_requested or is_late or self._failure is not None:
                    is_over.set()
            job.result()
        finally:
            shutil.rmtree(ray_files, ignore_errors=True)

    def _cut(self, search: StudySearch, *, is_lost: bool) -> None:
        """Trials that were still running count with what they have shown, unless they are lost."""
        for trial in search.running.values():
            if trial.curve and not is_lost:
                self._keep(trial.record("cut"))
            else:
                self._tracking.ended(trial.number, None)
            self._folder.clear_trial(trial.number)

    def _started(self, trial: RunningTrial) -> None:
        self._tracking.started(trial.number, changed(self._config, trial.values))
        self._progress.running(f"trial {trial.number}")

    def _reported(self, trial: RunningTrial, step: int, values: Mapping[str, float]) -> None:
        self._tracking.reported(trial.number, step, values, score=trial.curve[-1])
        self._progress.running(f"trial {trial.number} · validation {len(trial.curve)}")

    def _ended(self, trial: RunningTrial, is_error: bool) -> TrialRecord:
        """What is kept of a trial that Ray Tune says is over."""
        run = RunFolder(self._folder.trial(trial.number))
        if is_error:
            told = run.root / FAILURE_FILE
            error = told.read_text(encoding="utf-8") if told.exists() else "its worker died; was memory short?"
            record = replace(trial.record("failed", error), score=None)
        else:
            is_trained = len(trial.curve) >= self._config.training.epochs or run.state.get("status") == "trained"
            record = trial.record("finished" if is_trained else "stopped")
        if is_error and trial.number == 0:
            self._failure = record.error
            self._tracking.ended(0, None)
        else:
            self._keep(record)
        self._folder.clear_trial(trial.number)
        return record

    def _keep(self, record: TrialRecord) -> None:
        self._folder.add(record)
        self._records.append(record)
        best = best_of(self._records)
        self._tracking.ended(record.number, record, best=best)
        self._progress.ended(record, best, self._space.changes(self._config, record.values))


def _resources(config: ExperimentConfig, num_concurrent: int) -> dict[str, float]:
    """What each trial gets: its share of the cores, and of the GPUs where it trains on one."""
    import ray
    import torch

    cores = max(1, int(Machine.read(Path.cwd()).usable_cores) // num_concurrent)
    device = config.training.device
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return {"CPU": float(cores)}
    num_gpus = ray.cluster_resources().get("GPU", 0.0)
    return {"CPU": float(cores), "GPU": min(1.0, num_gpus / num_concurrent) or 1.0}
