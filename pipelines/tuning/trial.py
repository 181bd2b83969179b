"""run_trial(): one trial, in a Ray worker: the training of a config, validated but not tested."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipelines.tuning.folder import TuneFolder
from pipelines.tuning.score import Score
from pipelines.tuning.space import Values, changed
from recmoe.config import dump_config
from recmoe.errors import RecmoeError, TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.runs.folder import RunFolder, write_atomically
from recmoe.runs.train import prepare
from recmoe.training.stop import StopSignal

FAILURE_FILE = "failure.txt"
NEVER = 10**9
"""Steps between checkpoints: a trial that is killed is lost, so only its best validation needs one."""


def trial_config(base: ExperimentConfig, values: Values, work: Path) -> ExperimentConfig:
    """The config of a trial: nothing is tested, little is saved, and what is made of the rows is shared.

    Raises:
        ConfigError: the values do not fit together.
    """
    config = changed(base, values)
    data = {"test": (), "cache_dir": config.data.cache_dir or str(work / "cache")}
    training = {"checkpoint_every": NEVER, "keep_checkpoints": 1, "async_checkpoints": False}
    return config.model_copy(
        update={
            "data": config.data.model_copy(update=data),
            "training": config.training.model_copy(update=training),
            "tracking": config.tracking.model_copy(update={"kind": "none"}),
        }
    )


def prepared(config: ExperimentConfig, work: Path, *, is_quiet: bool = True) -> RunFolder:
    """What a trial's training reads, made once for all trials that read rows alike.

    Raises:
        RecmoeError: the data or the schema is not usable.
    """
    labels = [str(label) for label in config.label_columns()]
    told = json.dumps([dump_config(config.data), dump_config(config.inputs), labels])
    folder = RunFolder(work / "prepared" / hashlib.sha256(told.encode()).hexdigest()[:16])
    work.mkdir(parents=True, exist_ok=True)
    with FileLock(work / "prepare.lock"):
        if folder.state.get("status") != "prepared":
            folder.start(dump_config(config), resume=True)
            prepare(config, folder, is_quiet=is_quiet)
            folder.update_state(status="prepared")
    return folder


class TrialFolder(RunFolder):
    """Reports every validation to Ray Tune while it is written; a trial that is stopped ends there."""

    def __init__(self, root: Path, score: Score) -> None:
        super().__init__(root)
        self._score = score
        self._best: float | None = None
        self.num_reported = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        super().log(step, values)
        score = self._score.read(values)
        if score is None:
            return
        from ray import tune

        self._best = score if self._best is None else max(score, self._best)
        self.num_reported += 1
        # As text: Ray would take the names of metrics apart.
        told = json.dumps({name: value for name, value in values.items() if name.startswith("val/")})
        tune.report({"validation": self.num_reported, "step": step, "score": score, "best": self._best, "values": told})


def run_trial(settings: dict[str, Any]) -> None:
    """Train a trial to its end, unless Ray Tune stops it at a validation.

    Args:
        settings: ``root`` of the search, ``number`` of the trial, its ``values`` as JSON, ``num_threads``.

    Raises:
        Exception: as training raises it; the message is kept in the trial's folder.
    """
    import torch

    from recmoe.runs.worker import run_worker
    from recmoe.training.runtime import start_runtime

    tuning = TuneFolder(Path(settings["root"]))
    base = tuning.config
    folder = TrialFolder(tuning.trial(settings["number"]), Score.of(base))
    shutil.rmtree(folder.root, ignore_errors=True)
    try:
        config = trial_config(base, json.loads(settings["values"]), tuning.work)
        ready = prepared(config, tuning.work)
        folder.start(dump_config(config), resume=False)
        shutil.copytree(ready.encoder, folder.encoder)
        shutil.copy(ready.facts, folder.facts)
        runtime = start_runtime(device=config.training.device, timeout_s=config.training.timeout_s)
        torch.set_num_threads(settings["num_threads"])
        run_worker(config, folder, runtime=runtime, stop=StopSignal(), is_trial=True)
        if not folder.num_reported:
            raise TrainingError(f"{folder.root}: {Score.of(base).metric} is not defined on the validation split")
    except Exception as error:
        folder.root.mkdir(parents=True, exist_ok=True)
        told = str(error) if isinstance(error, RecmoeError) else f"{type(error).__name__}: {error}"
        write_atomically(folder.root / FAILURE_FILE, told)
        raise
