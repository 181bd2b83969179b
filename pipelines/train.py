"""Train an experiment in Ray Train workers: the same job, one process per worker."""

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from pipelines.ray_session import ray_session
from recmoe.errors import RecmoeError, TrainingError
from recmoe.experiment import ExperimentConfig, experiment_from_json
from recmoe.runs.folder import RunFolder, write_atomically
from recmoe.training.stop import StopSignal

MAX_FAILURES = 3
"""Times that a job is restarted from its last committed checkpoint before it gives up."""
MAX_STARTS = 3
"""Times that Ray tries to place the workers, a minute each, before it gives up; by itself it never would."""
FAILURE_FILE = "failure.txt"
STOP_FILE = "stop"
POLL_S = 0.2
LOG = logging.getLogger(__name__)


def train_on_ray(config: ExperimentConfig, folder: RunFolder, *, num_workers: int) -> None:
    """Run the training job of a prepared run folder in ``num_workers`` processes.

    A worker that dies takes the steps since the last checkpoint with it and nothing else: the
    group is started again, and goes on from there. Ctrl-C and SIGTERM ask the workers to save and stop.

    Raises:
        TrainingError: a worker stopped with an error of recmoe, the job was lost more often than it may, or Ray
            has too few cores or GPUs, or cannot run the workers.
    """
    failure, stop_file = folder.root / FAILURE_FILE, folder.root / STOP_FILE
    for left in (failure, stop_file):
        left.unlink(missing_ok=True)
    with ray_session(num_workers=num_workers), StopSignal() as stop:
        _check_resources({"CPU": num_workers, "GPU": num_workers if config.training.device == "cuda" else 0})
        from ray.train import ControllerError

        for num_failures in range(1, MAX_FAILURES + 2):
            try:
                _fit(_trainer(config, folder, num_workers=num_workers), stop, stop_file)
            except ControllerError as error:
                # Not a lost worker; and Ray may keep the cores of workers that it could not start.
                raise TrainingError(
                    f"Ray could not run the workers: {_cause(error)}; mend it and go on with --resume"
                ) from error
            except Exception as error:
                # A mistake in data or config stays one however often the job is restarted.
                if failure.exists():
                    raise TrainingError(failure.read_text()) from None
                if num_failures > MAX_FAILURES:
                    raise TrainingError(
                        f"the job was lost {num_failures} times, last with: {_cause(error)}; what was committed is in "
                        f"{folder.checkpoints}, go on with --resume"
                    ) from error
                LOG.warning("the job was lost (%s); it goes on from its last checkpoint", _cause(error))
            else:
                return


def _cause(error: Exception) -> str:
    """The last line of what Ray says, which is the error itself."""
    return str(error).strip().splitlines()[-1].strip()


def _fit(trainer: Any, stop: StopSignal, stop_file: Path) -> None:
    """Wait for a job, and tell it of a stop.

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
        if stop.is_requested:
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


def _check_resources(needed: Mapping[str, int]) -> None:
    """TrainingError where the workers would wait for ever to be placed."""
    import ray

    there = ray.cluster_resources()
    for name, count in needed.items():
        if there.get(name, 0) < count:
            raise TrainingError(
                f"{count} {name}s are needed, one per worker, and Ray has {there.get(name, 0):.0f}; "
                "ask for fewer --workers, or training.device=cpu where it is GPUs that are missing"
            )


def _work(settings: dict[str, Any]) -> None:
    """What each worker runs."""
    from recmoe.runs.worker import run_worker
    from recmoe.training.runtime import start_runtime

    folder = RunFolder(Path(settings["folder"]))
    config = experiment_from_json(folder.config.read_text())
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
