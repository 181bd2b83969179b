"""tune(): search for a better config: trials in Ray workers, drawn by Optuna, the poor ones stopped early."""

import logging
import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.ray_session import ray_session
from pipelines.tuning.best import best_yaml
from pipelines.tuning.folder import TrialRecord, TuneFolder, best_of
from pipelines.tuning.page import write_tune_page
from pipelines.tuning.progress import TuneProgress
from pipelines.tuning.score import Score
from pipelines.tuning.space import Space, changed, read_space
from pipelines.tuning.starting_space import starting_space
from pipelines.tuning.tracking import TuneTracking
from pipelines.tuning.trial import FAILURE_FILE, prepared, run_trial, trial_config
from recmoe.errors import TrainingError
from recmoe.experiment import ExperimentConfig, load_experiment
from recmoe.machine import Machine
from recmoe.runs.folder import write_atomically
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


@dataclass(frozen=True)
class TuneResult:
    """What a search has found so far."""

    folder: TuneFolder
    config: ExperimentConfig
    space: Space
    records: list[TrialRecord]
    is_interrupted: bool

    @property
    def best(self) -> TrialRecord | None:
        """The trial with the highest score."""
        return best_of(self.records)

    def changes(self, record: TrialRecord) -> dict[str, Any]:
        """What a trial had that the config has not."""
        return self.space.changes(self.config, record.values)


def tune(
    path: Path,
    root: Path,
    *,
    overrides: Sequence[str] = (),
    space: Path | None = None,
    num_trials: int = 30,
    time_s: float | None = None,
    num_concurrent: int = 1,
    resume: bool = False,
    is_quiet: bool = False,
) -> TuneResult:
    """Search around a config, and leave the best one and a page of what mattered in ``root``.

    Trials are compared on the validation split; the test split is not read. What is over stays: a search that was
    stopped or killed goes on with ``resume``, and loses the trials that were running.

    Args:
        path: the config; the first trial is the config as it stands.
        overrides: ``key.path=value`` for all trials.
        space: a YAML file of what is searched; around the config's own values by default.
        num_trials: trials of the whole search, those of earlier calls included.
        time_s: seconds after which running trials are cut.
        num_concurrent: trials at a time, which share the processor cores.

    Raises:
        ConfigError: the config or the space is wrong.
        TrainingError: the folder holds something else, or the config as it stands cannot be trained.
        RecmoeError: the data or the tracking store is not usable.
    """
    config = load_experiment(path, overrides)
    score = Score.of(config)
    searched = Space(starting_space(config)) if space is None else read_space(space, config)
    searched.check(config)
    folder = TuneFolder(root)
    folder.start(config, searched.to_json(), resume=resume)
    is_interrupted = False
    tracking = None
    if len(folder.records()) < num_trials:
        ready = prepared(trial_config(config, {}, folder.work.resolve()), folder.work, is_quiet=is_quiet)
        folder.check_rows(ready.state["train_files"])
        tracking = TuneTracking.start(config, folder)
        search = _Search(config, searched, folder, tracking, num_trials=num_trials, is_quiet=is_quiet)
        is_interrupted = search.run(num_concurrent=num_concurrent, time_s=time_s)
    result = TuneResult(folder, config, searched, folder.records(), is_interrupted)
    _write(result, score, path, overrides)
    if tracking is not None:
        tracking.finish(folder, is_interrupted=is_interrupted)
    if len(result.records) >= num_trials:
        shutil.rmtree(folder.work, ignore_errors=True)
    return result


class _Search:
    """One call's part of a search."""

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
            from pipelines.tuning.search import StudySearch

            logging.getLogger("ray.tune").setLevel(logging.ERROR)
            deadline_s = None if time_s is None else time.monotonic() + time_s
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
                self._fit(search, stop, deadline_s, resources, num_concurrent)
            finally:
                self._progress.close()
            for trial in search.running.values():
                if trial.curve and not stop.is_requested and self._failure is None:
                    self._keep(trial.record("cut"))
                else:
                    self._tracking.ended(trial.number, None)
                self._folder.clear_trial(trial.number)
        if self._failure is not None:
            raise TrainingError(f"the config as it stands cannot be trained, so there is nothing to improve: {self._failure}")
        return stop.is_requested

    def _fit(
        self,
        search: Any,
        stop: StopSignal,
        deadline_s: float | None,
        resources: Mapping[str, float],
        num_concurrent: int,
    ) -> None:
        """Have Ray Tune run the trials, in a thread: on the main one it would answer Ctrl-C itself."""
        from ray import tune as ray_tune

        from pipelines.tuning.search import Halving, StopWhenOver

        training = self._config.training

        is_over = threading.Event()
        ray_files = self._folder.root.resolve() / "ray"
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(run_trial, dict(resources)),
            tune_config=ray_tune.TuneConfig(
                search_alg=search,
                scheduler=Halving(training.epochs if training.evaluate_every is None else None, self._records),
                num_samples=self._num_left,
                max_concurrent_trials=num_concurrent,
                # A worker needs seconds to start, and trials of small logs not many more.
                reuse_actors=True,
            ),
            run_config=ray_tune.RunConfig(name="trials", storage_path=str(ray_files), verbose=0, stop=StopWhenOver(is_over.is_set)),
        )
        job: Future[None] = Future()

        def run() -> None:
            try:
                tuner.fit()
            except BaseException as error:
                job.set_exception(error)
            else:
                job.set_result(None)

        try:
            threading.Thread(target=run, daemon=True).start()
            while not wait([job], timeout=POLL_S).done:
                is_late = deadline_s is not None and time.monotonic() > deadline_s
                if stop.is_requested or is_late or self._failure is not None:
                    is_over.set()
            job.result()
        finally:
            shutil.rmtree(ray_files, ignore_errors=True)

    def _started(self, trial: Any) -> None:
        self._tracking.started(trial.number, changed(self._config, trial.values))
        self._progress.running(f"trial {trial.number}")

    def _reported(self, trial: Any, step: int, values: Mapping[str, float]) -> None:
        self._tracking.reported(trial.number, step, values, score=trial.curve[-1])
        self._progress.running(f"trial {trial.number} · validation {len(trial.curve)}")

    def _ended(self, trial: Any, is_error: bool) -> TrialRecord:
        """What is kept of a trial that Ray Tune says is over."""
        run = self._folder.trial(trial.number)
        if is_error:
            told = run / FAILURE_FILE
            error = told.read_text(encoding="utf-8") if told.exists() else "its worker died; was memory short?"
            record = TrialRecord(trial.number, trial.values, "failed", None, seconds=trial.record("failed").seconds, error=error)
        else:
            is_trained = len(trial.curve) >= self._config.training.epochs or _is_trained(run)
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


def _is_trained(run: Path) -> bool:
    from recmoe.runs.folder import RunFolder

    return RunFolder(run).state.get("status") == "trained"


def _resources(config: ExperimentConfig, num_concurrent: int) -> dict[str, float]:
    """What each trial gets: its share of the cores, and of the GPUs where it trains on one."""
    import ray
    import torch

    cores = max(1, int(Machine.read(Path.cwd()).usable_cores) // num_concurrent)
    device = config.training.device
    needs_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if not needs_gpu:
        return {"CPU": float(cores)}
    num_gpus = ray.cluster_resources().get("GPU", 0.0)
    return {"CPU": float(cores), "GPU": min(1.0, num_gpus / num_concurrent) or 1.0}


def _write(result: TuneResult, score: Score, path: Path, overrides: Sequence[str]) -> None:
    """The best config and the page; neither where no trial has a score yet."""
    best = result.best
    if best is None:
        return
    before = next((record for record in result.records if record.number == 0), None)
    comments = [f"The best of {len(result.records)} trials: trial {best.number}, {score.metric} {score.shown(best.score or 0.0):.4f} on validation."]
    if before is not None and before.score is not None and before.number != best.number:
        comments.append(f"{path.name} as it stood has {score.shown(before.score):.4f}.")
    comments.append(f"recmoe train {result.folder.best} --run-dir runs/{result.config.name}-tuned")
    text = best_yaml(path, result.folder.best, overrides=overrides, values=result.changes(best), comments=comments)
    write_atomically(result.folder.best, text)
    write_tune_page(result.records, result.space, result.config, score, result.folder.page)
