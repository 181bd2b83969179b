"""recmoe: its own training path, ``train_run``, in a process of its own like every peer.

python -m benchmarks.recmoe_runner job.json
"""

import shutil
import time
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.peers.job import Job, peak_gib, ready_batches
from recmoe.data.loader import BatchLoader, Split
from recmoe.data.order import Cursor
from recmoe.experiment import ExperimentConfig, load_experiment
from recmoe.features.batch import Batch
from recmoe.runs.folder import RunFolder
from recmoe.runs.splits import Splits
from recmoe.runs.train import train_run
from recmoe.runs.worker import _Job, run_worker
from recmoe.training.runtime import start_runtime
from recmoe.training.stop import StopSignal

CONFIGS = Path(__file__).parent / "configs"


def main() -> None:
    """Measure the job named on the command line."""
    measure(Job.from_command_line())


def measure(job: Job) -> None:
    """Train, measure, answer."""
    values = _train(job)
    if job.num_ready_steps:
        values["ready_samples_per_s"] = ready_samples_per_s(job)
    job.answer(**values)


def experiment(job: Job, *overrides: str) -> ExperimentConfig:
    """The config of a job: the file of its model, with what the job says."""
    splits = {split: f'["{job.path(split)}"]' for split in ("train", "validation", "test")}
    if job.num_steps is not None:
        splits |= {"validation": "[]", "test": "[]"}
    return load_experiment(
        CONFIGS / f"{job.model}.yaml",
        [
            *(f"data.{split}={paths}" for split, paths in splits.items()),
            f"seed={job.seed}",
            f"training.batch_size={job.batch_size}",
            f"training.precision={job.precision}",
            f"training.device={job.device}",
            *overrides,
        ],
    )


def _train(job: Job) -> dict[str, Any]:
    overrides = []
    if job.num_steps is not None:
        # Whoever trains whole epochs has the rows encoded once; the steps of a speed run are some of those.
        overrides = [f"training.max_steps={job.num_steps}", "data.encoded_cache=on"]
    config = experiment(job, *overrides)
    memory = _MemoryAtTheEnd()
    launched_s = 0.0

    def launch(config: ExperimentConfig, folder: RunFolder) -> None:
        nonlocal launched_s
        launched_s = time.perf_counter()
        runtime = start_runtime(device=config.training.device, timeout_s=config.training.timeout_s)
        run_worker(config, folder, runtime=runtime, stop=memory)

    started_s = time.perf_counter()
    result = train_run(config, _fresh(job, "run"), resume=False, launch=launch, is_quiet=True)
    state = result.folder.state
    values = {
        "samples_per_s": state["samples_per_s"],
        "wait_share": state["wait_share"],
        "num_steps": state["step"],
        "peak_gib": memory.peak_gib,
        "prepare_s": launched_s - started_s,
    }
    if result.report is not None:
        values["auc"] = {name: result.report.value(f"{name}.auc[all]") for name in job.labels}
    return values


def ready_samples_per_s(job: Job, *overrides: str) -> float:
    """The same training loop, its batches encoded before it starts."""
    # Few rows are quickly prepared, and what the loop does with a batch does not depend on how many there are.
    config = experiment(
        job,
        f'data.train=["{job.path("test")}"]',
        "data.validation=[]",
        "data.test=[]",
        f"training.max_steps={job.num_ready_steps}",
        "training.epochs=1000000",
        *overrides,
    )

    def launch(config: ExperimentConfig, folder: RunFolder) -> None:
        runtime = start_runtime(device=config.training.device, timeout_s=config.training.timeout_s)
        job = _Job(config, folder, runtime)
        job.splits = _ReadySplits(config, folder, encoder=job.encoder, runtime=runtime)
        job.splits.num_steps = config.training.max_steps or 0
        position = job.train(StopSignal()).position
        folder.update_state(status="interrupted", samples_per_s=position.samples_per_s)

    result = train_run(config, _fresh(job, "ready"), resume=False, launch=launch, is_quiet=True)
    return result.samples_per_s


class _MemoryAtTheEnd(StopSignal):
    """Never asks to stop; looks at the memory when training is over, before the model is scored and bundled."""

    peak_gib = 0.0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.peak_gib = peak_gib()
        super().__exit__(kind, error, trace)


class _ReadySplits(Splits):
    """Splits whose loaders have all their batches before the first step."""

    num_steps = 0

    def loader(self, split: Split, *, batch_size: int) -> BatchLoader:
        return _ReadyLoader(super().loader(split, batch_size=batch_size), self.num_steps)  # type: ignore[return-value]


class _ReadyLoader:
    """Stands in for a ``BatchLoader``: the batches are there, and nobody waits for them."""

    wait_s = 0.0

    def __init__(self, loader: BatchLoader, num_steps: int) -> None:
        batches = loader.epoch(loader.stream.start())
        self._batches: list[Batch] = ready_batches(batches, num_steps=num_steps)
        batches.close()

    def epoch(self, cursor: Cursor) -> Generator[Batch]:
        """The batches, wherever the cursor stands."""
        del cursor
        yield from self._batches


def _fresh(job: Job, name: str) -> Path:
    folder = Path(job.cache) / name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


if __name__ == "__main__":
    main()
