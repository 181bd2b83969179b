"""Trainings: each is done once and kept as one JSON file, named by a digest of its config, rows and seed."""

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.comparison.logs import SIMPLE
from benchmarks.comparison.measures import Measured, measure, simple_predictions
from benchmarks.comparison.sizes import Sizes, sizes_of
from recmoe.config import dump_config
from recmoe.data.loader import BatchLoader
from recmoe.evaluation.predict import predict_rows
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.folder import write_atomically
from recmoe.runs.train import train_run

VERSION = 1
"""Part of the digest: grows when the numbers of the same config would be others."""
SAMPLE_ROWS = 1000
"""Rows of the test split that say how many ids a row has."""


@dataclass(frozen=True)
class Job:
    """A training to do."""

    log: str
    log_digest: str
    variant: str
    trial: int
    config: ExperimentConfig
    metrics: tuple[str, ...]
    """Measured on the test split."""
    num_resamples: int

    @cached_property
    def digest(self) -> str:
        """Of all that decides the numbers; where the rows lie, and who else is compared, does not."""
        config = dump_config(self.config)
        for name in ("train", "validation", "test", "cache_dir"):
            del config["data"][name]
        about = [VERSION, self.log_digest, config, self.metrics, self.num_resamples]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]

    def path(self, to: Path) -> Path:
        """Where its result is kept."""
        name = f"{self.log}-{self.variant.replace(':', '-')}-{self.config.seed}-{self.digest}.json"
        return to / "results" / name


@dataclass(frozen=True)
class Result:
    """A training that is done."""

    variant: str
    trial: int
    seed: int
    score: float | None
    """Of the validation split, by which a trial is chosen; None for a simple model."""
    metrics: dict[str, Measured]
    """Of the test split, by name."""
    sizes: Sizes | None = None
    num_samples: int = 0
    """Rows that it learned from, those of every epoch."""
    seconds: float = 0.0
    """From the config to the measured test split."""

    def save(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Result":
        """What ``save`` wrote."""
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values["metrics"] = {
            name: Measured(one["value"], tuple(one["values_R"])) for name, one in values["metrics"].items()
        }
        values["sizes"] = values["sizes"] and Sizes(**values["sizes"])
        return cls(**values)


@dataclass(frozen=True)
class Failure:
    """A training that ended with an error; a second start tries it again."""

    variant: str
    reason: str


def stored(job: Job, to: Path) -> Result | None:
    """What an earlier start has left of a training."""
    return Result.load(job.path(to)) if job.path(to).exists() else None


def train(job: Job, to: Path) -> Result | Failure | None:
    """Train, measure, keep; None where Ctrl-C or SIGTERM stopped it, and a second start goes on from there."""
    root = to / "runs" / job.digest
    try:
        result = _train(job, root)
    except Exception as error:  # One variant that cannot be trained must not end a night's comparison.
        shutil.rmtree(root, ignore_errors=True)
        return Failure(job.variant, f"{type(error).__name__}: {error}")
    if result is not None:
        result.save(job.path(to))
        shutil.rmtree(root)
    return result


def _train(job: Job, root: Path) -> Result | None:
    start_s = time.perf_counter()
    config = job.config
    # The test split is read when the weights are there, not by the run.
    run = train_run(
        config.model_copy(update={"data": config.data.model_copy(update={"test": ()})}),
        root,
        resume=True,
        is_quiet=True,
    )
    if run.is_interrupted:
        return None
    bundle = ModelBundle.load(run.folder.bundle)
    stream = config.data.build("test", seed=config.seed, cache_dir=root / "cache")
    loader = BatchLoader(stream, bundle.encoder, batch_size=config.training.evaluation_batch_size)
    predictions = predict_rows(bundle.model, loader).predictions
    rows = next(stream.blocks_in_file_order([(0, stream.num_rows)], batch_size=SAMPLE_ROWS)).table
    state = run.folder.state
    return Result(
        variant=job.variant,
        trial=job.trial,
        seed=config.seed,
        score=state["best_value"],
        metrics=measure(predictions, job.metrics, config=config.evaluation, num_resamples=job.num_resamples),
        sizes=sizes_of(config, bundle, rows),
        num_samples=state["num_samples"],
        seconds=time.perf_counter() - start_s,
    )


def simple_results(job: Job, to: Path, *, is_new_allowed: bool = True) -> list[Result]:
    """Logistic regression and gradient-boosted trees over the same rows.

    Args:
        job: its variant and model are not read.
        is_new_allowed: to learn what is not stored.
    """
    evaluation = job.config.evaluation.model_copy(update={"baselines": SIMPLE})
    config = job.config.model_copy(update={"evaluation": evaluation})
    jobs: dict[str, Job] = {kind: replace(job, variant=kind, config=config) for kind in SIMPLE}
    if is_new_allowed and not all(one.path(to).exists() for one in jobs.values()):
        scratch = to / "runs" / f"simple-{job.digest}"
        for kind, predictions in simple_predictions(config, scratch).items():
            metrics = measure(predictions, job.metrics, config=evaluation, num_resamples=job.num_resamples)
            Result(kind, 0, config.seed, None, metrics).save(jobs[kind].path(to))
        shutil.rmtree(scratch, ignore_errors=True)
    return [Result.load(one.path(to)) for one in jobs.values() if one.path(to).exists()]


def chosen(trials: Sequence[Result]) -> Result:
    """The trial that validates best; the earlier one of equals."""
    return max(trials, key=lambda one: (one.score is not None, one.score or 0.0, -one.trial))
