"""Speeds: how many samples a variant trains on in a second, with nothing beside it."""

import json
import shutil
from pathlib import Path

from benchmarks.comparison.trainings import Job
from recmoe.runs.folder import write_atomically
from recmoe.runs.train import train_run

NUM_EPOCHS = 2


def speed_of(job: Job, to: Path, *, is_new_allowed: bool = True) -> float | None:
    """Samples per second of a short training, measured once; None where it is not measured.

    Args:
        is_new_allowed: to measure what is not stored.
    """
    path = job.path(to / "speeds")
    if not path.exists():
        if not is_new_allowed:
            return None
        training = job.config.training.model_copy(update={"epochs": NUM_EPOCHS, "early_stopping": None})
        data = job.config.data.model_copy(update={"test": ()})
        root = to / "runs" / f"speed-{job.digest}"
        shutil.rmtree(root, ignore_errors=True)
        run = train_run(
            job.config.model_copy(update={"training": training, "data": data}), root, resume=False, is_quiet=True
        )
        speed = run.folder.state.get("samples_per_s")
        shutil.rmtree(root)
        if run.is_interrupted or speed is None:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"samples_per_s": speed}) + "\n")
    found: float = json.loads(path.read_text(encoding="utf-8"))["samples_per_s"]
    return found
