"""Train an experiment in Ray Train workers: the same job, one process per worker."""

import logging
import threading
import time
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from pipelines.ray_session import ray_session
from pipelines.room import Growth, Room, check_shared
from recmoe.errors import RecmoeError, TrainingError
from recmoe.experiment import ExperimentConfig, experiment_from_json
from recmoe.runs.folder import RunFolder, write_atomically
from recmoe.training.checkpoint_folder import committed
from recmoe.training.stop import StopSignal

MAX_FAILURES = 3
"""Times that a job is restarted from the same committed checkpoint before it gives up."""
MAX_STARTS = 3
"""Times that Ray tries to place the workers, a minute each, before it gives up; by itself it never would."""
FAILURE_FILE = "failure.txt"
STOP_FILE = "stop"
POLL_S = 0.2
LOG = logging.getLogger(__name__)


def train_on_ray(
    config: ExperimentConfig, folder: RunFolder, *, num_workers: int, min_workers: int | None = None
) -> None:
    """Run the training job of a prepared run folder in ``num_workers`` processes, or as many as there is room for.

    A worker or a node that dies takes the steps since the last checkpoint with it and nothing else: the
    group is started again, and goes on from there. Ctrl-C and SIGTERM ask the workers to save and stop.

    Args:
        min_workers: fewest workers to train with, ``num_workers`` by default. With fewer, the job goes on with those
            that the cluster has room for; when there is room for more, it saves, and goes on with them.
            ``training.batch_size`` is per worker: a step of fewer workers has fewer rows.

    Raises:
        TrainingError: a worker stopped with an error of recmoe, the job was lost more often than it may, Ray
            has too few cores or GPUs or cannot run the workers, or a node does not see the folder.
    """
    needs = {"CPU": 1.0, "GPU": 1.0} if config.training.device == "cuda" else {"CPU": 1.0}
    room = Room(smallest=min_workers or num_workers, largest=num_workers, needs=needs)
    with ray_session(num_workers=num_workers), StopSignal() as stop:
        room.check()
        try:
            _Job(config, folder, room, stop).run()
        finally:
            room.give_back()


class _Job:
    """Attempts at one training job, each with as many workers as there is room for."""

    def __init__(self, config: ExperimentConfig, folder: RunFolder, room: Room, stop: StopSignal) -> None:
        self._config = config
        self._folder = folder
        self._room = room
        self._stop = stop
        self._failure = folder.root / FAILURE_FILE
        self._stop_file = folder.root / STOP_FILE
        self._num_failures = 0
        """In a row, without a new checkpoint between them."""
        self._last_commit: Path | None = None

    def run(self) -> None:
        """Start the workers until they have finished, or have stopped because they were told to."""
        num_before = 0
        while True:
            for left in (self._failure, self._stop_file):
                left.unlink(missing_ok=True)
            num_workers = self._room.wait(is_stopped=lambda: self._stop.is_requested)
            if not num_workers:
                self._folder.update_state(status="interrupted")
                return
            check_shared(self._folder)
            if num_workers != num_before and (num_before or num_workers < self._room.largest):
                LOG.warning(
                    "%d workers of at most %d: a step has %d rows",
                    num_workers, self._room.largest, num_workers * self._config.training.batch_size,
                )  # fmt: skip
            num_before = num_workers
            self._folder.update_state(status="running")
            if self._attempt(num_workers):
                return

    def _attempt(self, num_workers: int) -> bool:
        """Run the workers once; whether the job is over."""
        from ray.train import ControllerError

        trainer = _trainer(self._config, self._folder, num_workers=num_workers)
        growth = Growth(self._room, num_workers)
        try:
            _fit(trainer, self._stop, self._stop_file, growth)
        except ControllerError as error:
            # Not a lost worker; and Ray may keep the cores of workers that it could not start.
            raise TrainingError(
                f"Ray could not run the workers: {_cause(error)}; mend it and go on with --resume"
            ) from error
        except Exception as error:
            self._lost(error)
            return False
        is_over = self._stop.is_requested or self._folder.state.get("status") != "interrupted"
        return is_over or not growth.is_due

    def _lost(self, error: Exception) -> None:
        """Count a lost attempt, and give up where another one would not help."""
        # A mistake in data or config stays one however often the job is restarted.
        if self._failure.exists():
            raise TrainingError(self._failure.read_text(encoding="utf-8")) from None
        newest = next(iter(committed(self._folder.checkpoints)), None)
        self._num_failures = self._num_failures + 1 if newest == self._last_commit else 1
        self._last_commit = newest
        if self._num_failures > MAX_FAILURES:
            raise TrainingError(
                f"the job was lost {self._num_failures} times, last with: {_cause(error)}; what was committed is in "
                f"{self._folder.checkpoints}, go on with --resume"
            ) from error
        LOG.warning("the job was lost (%s); it goes on from its last checkpoint", _cause(error))


def _cause(error: Exception) -> str:
    """The last line of what Ray says, which is the error itself."""
    return str(error).strip().splitlines()[-1].strip()


def _fit(trainer: Any, stop: StopSignal, stop_file: Path, growth: Growth) -> None:
    """Wait for a job, and tell it to save and stop where that was asked for, or where it could have more workers.

    It has a thread of its own: on the main one Ray would answer Ctrl-C itself, and drop the job where it is.
    """
    job: Future[None] = Future()

    def run() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            job.set_exception(error)
        else:
            job.set_result(None)

    threading.Thread(target=run, daemon=True).start()
    while not wait([job], timeout=POLL_S).done:
        if stop.is_requested or growth.is_possible():
            stop_file.touch()
    job.result()


def _trainer(config: ExperimentConfig, folder: RunFolder, *, num_workers: int) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    use_gpu = config.training.device == "cuda"
    root = str(folder.root.resolve())
    return TorchTrainer(
        _work,
        train_loop_config={"folder": root},
        scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu, resources_per_worker={"CPU": 1}),
        # Ray would start the workers anew after any error; which errors deserve it is decided above.
        run_config=RunConfig(
            name="ray",
            storage_path=root,
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=MAX_STARTS - 1),
        ),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=int(config.training.timeout_s)),
    )


def _work(settings: dict[str, Any]) -> None:
    """What each worker runs."""
    from recmoe.runs.worker import run_worker
    from recmoe.training.runtime import start_runtime

    folder = RunFolder(Path(settings["folder"]))
    config = experiment_from_json(folder.config.read_text(encoding="utf-8"))
    runtime = start_runtime(device=config.training.device, timeout_s=config.training.timeout_s)
    stop = StopSignal()
    threading.Thread(target=_follow, args=(folder.root / STOP_FILE, stop), daemon=True).start()
    try:
        run_worker(config, folder, runtime=runtime, stop=stop)
    except RecmoeError as error:
        write_atomically(folder.root / FAILURE_FILE, str(error))
        raise


def _follow(stop_file: Path, stop: StopSignal) -> None:
    """Ask for a stop once the file is there: signals reach the process that was started by hand, not its workers."""
    while not stop_file.exists():
        time.sleep(POLL_S)
    stop.is_requested = True
