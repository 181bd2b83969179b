"""Job and StepMeter: what a participant is asked to do, and the clock that all of them share.

Imported in every peer's environment: torch, numpy and the standard library are all there is.
"""

import json
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

WARM_STEPS = 3
"""Steps at the start that are not timed: memory is not yet allocated, kernels not yet chosen."""
NUM_READY_BATCHES = 8
"""Different batches that lie ready in memory and are gone through in turn."""
EVALUATION_BATCH_SIZE = 16384

Model = Literal["mmoe", "ple"]


@dataclass(frozen=True)
class Sizes:
    """Layer sizes that all participants have."""

    width: int = 16
    """Floats per table row."""
    expert_hidden: tuple[int, ...] = (256, 128)
    tower_hidden: tuple[int, ...] = (64,)
    num_experts: int = 8
    """Of MMoE."""
    num_levels: int = 2
    """Of PLE."""
    num_shared_experts: int = 2
    """Of PLE, per level."""
    num_task_experts: int = 2
    """Of PLE, per level and task."""
    lr: float = 1e-3
    """Of Adam."""


@dataclass(frozen=True)
class Job:
    """What one participant is asked to do; travels as a JSON file."""

    log: str
    """Folder of train.parquet, validation.parquet and test.parquet."""
    num_ids: dict[str, int]
    """Different ids of each id feature, by column."""
    floats: tuple[str, ...]
    """Columns of numbers."""
    labels: tuple[str, ...]
    """Columns of the two tasks."""
    model: Model
    precision: str
    """``shipped``, or ``tuned`` with the faster float32 matrix products; for recmoe ``fp32`` or ``bf16``."""
    result: str
    """Where the answer goes."""
    cache: str
    """Folder for what is derived from the log."""
    batch_size: int = 4096
    num_steps: int | None = None
    """Optimizer steps of the run with reading; a full epoch, and the test AUC after it, without."""
    num_ready_steps: int = 20
    """Optimizer steps on ready batches; none with 0."""
    device: str = "cpu"
    seed: int = 0
    sizes: Sizes = field(default_factory=Sizes)

    def save(self, path: Path) -> None:
        """Write it for the participant's process."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Job":
        """Read what ``save`` wrote."""
        values = _with_tuples(json.loads(path.read_text(encoding="utf-8")))
        return cls(**values | {"sizes": Sizes(**_with_tuples(values["sizes"]))})

    @classmethod
    def from_command_line(cls) -> "Job":
        """The job named by the only argument, with torch set up as it says."""
        job = cls.load(Path(sys.argv[1]))
        if job.precision == "tuned":
            # On CPUs this makes oneDNN multiply float32 matrices, on NVIDIA GPUs it allows TF32.
            torch.set_float32_matmul_precision("medium")
        torch.manual_seed(job.seed)
        np.random.seed(job.seed)  # What the peers draw from.
        return job

    def path(self, split: str) -> str:
        """The file of ``train``, ``validation`` or ``test``."""
        return str(Path(self.log) / f"{split}.parquet")

    def answer(self, **values: Any) -> None:
        """Write what was found; the parent process reads it."""
        Path(self.result).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


class EnoughError(Exception):
    """Thrown through a training loop when it has done the steps that were asked for."""


class StepMeter:
    """Tells the time of every optimizer step of whatever loop runs inside it, and stops it after enough of them.

    torch calls it after each ``Optimizer.step``, so that no training loop has to be touched::

        with StepMeter(batch_size=4096, num_rows=1_700_000, max_steps=80) as meter:
            trainer.fit(...)
        meter.samples_per_s

    Args:
        num_rows: rows of the epoch; its last batch may be short.
        max_steps: ends the loop; it runs to its end without.
    """

    def __init__(self, *, batch_size: int, num_rows: int | None = None, max_steps: int | None = None) -> None:
        self._batch_size = batch_size
        self._num_rows = num_rows
        self._max_steps = max_steps
        self._times_s: list[float] = []
        self.peak_gib = 0.0
        """Most memory the process has had by its last step."""

    @property
    def num_steps(self) -> int:
        """Optimizer steps seen."""
        return len(self._times_s)

    @property
    def samples_per_s(self) -> float:
        """Rows per second from the end of the warm-up to the end of the last step."""
        if self.num_steps <= WARM_STEPS:
            raise RuntimeError(f"{self.num_steps} optimizer steps were seen, more than {WARM_STEPS} are needed")
        rows = self.num_steps * self._batch_size
        if self._num_rows is not None:
            rows = min(rows, self._num_rows)
        seconds = self._times_s[-1] - self._times_s[WARM_STEPS - 1]
        return (rows - WARM_STEPS * self._batch_size) / seconds

    def __enter__(self) -> "StepMeter":
        self._handle = register_optimizer_step_post_hook(self._after_step)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._handle.remove()
        return isinstance(error, EnoughError)

    def _after_step(self, *_: object) -> None:
        is_last = self.num_steps + 1 == self._max_steps
        if torch.cuda.is_available() and (is_last or self.num_steps + 1 == WARM_STEPS):
            torch.cuda.synchronize()
        self._times_s.append(time.perf_counter())
        self.peak_gib = peak_gib()
        if is_last:
            raise EnoughError


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def peak_gib() -> float:
    """Most memory this process has had so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def ready_batches(loader: Iterable[Any], *, num_steps: int) -> list[Any]:
    """The first batches of a loader, in turn, as many as there are steps."""
    batches: list[Any] = []
    for batch in loader:
        batches.append(batch)
        if len(batches) == NUM_READY_BATCHES:
            break
    return [batches[step % len(batches)] for step in range(num_steps)]


def auc_of(labels: Sequence[str], truth: Any, predictions: Any) -> dict[str, float]:
    """Test AUC by task, from columns of labels and of probabilities."""
    from sklearn.metrics import roc_auc_score

    return {name: float(roc_auc_score(truth[:, i], predictions[:, i])) for i, name in enumerate(labels)}
