"""Train an experiment in Ray Train workers: the same job, one process per worker."""

from pathlib import Path
from typing import Any

from pipelines.ray_session import ray_session
from recmoe.errors import RecmoeError, TrainingError
from recmoe.experiment import ExperimentConfig, experiment_from_json
from recmoe.runs.folder import RunFolder

MAX_FAILURES = 3
"""Times that a job is restarted from its last committed checkpoint before it gives up."""
FAILURE_FILE = "failure.txt"


def train_on_ray(config: ExperimentConfig, folder: RunFolder, *, num_workers: int) -> None:
    """Run the training job of a prepared run folder in ``num_workers`` processes.

    A worker that dies takes the steps since the last checkpoint with it and nothing else: Ray
    starts the group again, and it goes on from there.

    Raises:
        TrainingError: a worker stopped with an error of recmoe, or the job was lost more often than it may.
    """
    failure = folder.root / FAILURE_FILE
    failure.unlink(missing_ok=True)
    with ray_session(num_workers=num_workers):
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        use_gpu = config.training.device == "cuda"
        root = str(folder.root.resolve())
        trainer = TorchTrainer(
            _work,
            train_loop_config={"folder": root},
            scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(
                name="ray", storage_path=root, failure_config=FailureConfig(max_failures=MAX_FAILURES)
            ),
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo", timeout_s=int(config.training.timeout_s)),
        )
        try:
            trainer.fit()
        except Exception as error:
            if failure.exists():
                raise TrainingError(failure.read_text()) from None
            raise TrainingError(
                f"the job was lost {MAX_FAILURES + 1} times, last with: {error}; what was committed is in "
                f"{folder.checkpoints}, go on with --resume"
            ) from error


def _work(settings: dict[str, Any]) -> None:
    """What each worker runs."""
    from recmoe.runs.worker import run_worker
    from recmoe.training.runtime import start_runtime

    folder = RunFolder(Path(settings["folder"]))
    failure = folder.root / FAILURE_FILE
    if failure.exists():
        # A mistake in data or config stays one however often the job is restarted.
        raise TrainingError(failure.read_text())
    config = experiment_from_json(folder.config.read_text())
    runtime = start_runtime(device=config.training.device, timeout_s=config.training.timeout_s)
    try:
        run_worker(config, folder, runtime=runtime)
    except RecmoeError as error:
        failure.write_text(str(error))
        raise
