"""RunFolder: where a run keeps what it makes."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recmoe.config import dump_config
from recmoe.errors import ConfigError, TrainingError
from recmoe.experiment import experiment_from_json
from recmoe.runs.claim import CLAIM_FILES, claimed
from recmoe.tasks.stored import with_stored_tasks
from recmoe.training.checkpoint_folder import committed

ENCODED = "encoded"
"""Folder of encoded rows in a cache."""


class RunFolder:
    """The files of one run::

    config.json      the resolved config
    encoder/         vocabularies and statistics, learnt once from the training split
    leaks.json       what each feature alone tells of each task, and what of it is suspicious
    plan.json        where every table went
    warm_start.json  what was carried over from an earlier model, where the run goes on from one
    checkpoints/     the newest ones and the best
    metrics.jsonl    a line per logged step and validation
    alarms.json      what went wrong with gates and experts while it trained, by kind
    baselines.json   what simple models reach on the test split; baselines.npz holds their predictions
    pretraining.json how well a pre-training guesses hidden ids; such a run has no report and no bundle
    report.json      metrics of the test split; report.html shows them
    cost.json        what the model costs and predicts next to the one that it was made from, where there is one
    bundle/          the model as it is served
    cache/           CSV files as Parquet, encoded rows while the run needs them, and what a teacher says of them
    facts.json       where tasks begin, and the share of ids that are new in validation
    scratch/         ids that exceed the memory of preparation, while it lasts
    state.json       status, tracking id, identity of the files, best step
    .owner.json      the process that works on it, while it does
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.json"
        self.encoder = root / "encoder"
        self.leaks = root / "leaks.json"
        self.plan = root / "plan.json"
        self.warm_start = root / "warm_start.json"
        self.facts = root / "facts.json"
        self.checkpoints = root / "checkpoints"
        self.metrics = root / "metrics.jsonl"
        self.alarms = root / "alarms.json"
        self.baselines = root / "baselines.json"
        self.pretraining = root / "pretraining.json"
        self.report = root / "report.json"
        self.page = root / "report.html"
        self.bundle = root / "bundle"
        self.cache = root / "cache"
        self.encoded = self.cache / ENCODED
        self.teacher = self.cache / "teacher"
        self.cost = root / "cost.json"
        self.scratch = root / "scratch"
        self._state = root / "state.json"

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder while this process works on the run.

        Raises:
            TrainingError: it holds something else than a run, or another process works on it.
        """
        self._check_ours()
        with claimed(self.root):
            yield

    def _check_ours(self) -> None:
        """TrainingError if the folder holds something that is no run."""
        others = self.root.exists() and any(path.name not in CLAIM_FILES for path in self.root.iterdir())
        if others and not self.config.exists():
            raise TrainingError(f"{self.root} is not empty and holds no run; choose another --run-dir")

    def start(self, config: Mapping[str, Any], *, resume: bool) -> None:
        """Make the folder that of a run, or check that it belongs to the same run.

        A run without a checkpoint has nothing to lose: resumed with another config, it starts anew with that.
        One that is only prepared need not be resumed, and what was learnt stays while its sections stay.

        Raises:
            TrainingError: it holds another run, or one and ``resume`` is off.
        """
        self._check_ours()
        if not self.config.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            write_atomically(self.config, json.dumps(config, indent=2))
            return
        if not resume and self.state.get("status") not in ("preparing", "prepared"):
            raise TrainingError(f"{self.root} holds a run already; go on with --resume or choose another --run-dir")
        changed = sorted(_differences(_as_read_now(_read(self.config)), config))
        has_something_to_lose = committed(self.checkpoints) or self.state.get("status") == "finished"
        if changed and not has_something_to_lose:
            if any(path.startswith(LEARNT_FROM) for path in changed):
                shutil.rmtree(self.encoder, ignore_errors=True)
            write_atomically(self.config, json.dumps(config, indent=2))
            return
        moved = [path.removeprefix("data.") for path in changed if path in FILE_KEYS]
        # Whether they are the same files elsewhere is seen when they are opened.
        if moved != self.state.get("moved", []):
            self.update_state(moved=moved)
        changed = [path for path in changed if path not in FILE_KEYS]
        if changed:
            raise TrainingError(
                f"{self.root} was started with another config: {', '.join(changed)}; "
                "resume with the same values, or start afresh in another --run-dir"
            )

    def keep_config(self, config: Mapping[str, Any]) -> None:
        """Write down the config of a run that goes on with its files in another place."""
        write_atomically(self.config, json.dumps(config, indent=2))
        self.update_state(moved=[])

    @property
    def state(self) -> dict[str, Any]:
        """What is known of the run so far."""
        if not self._state.exists():
            return {}
        return _read(self._state)

    def update_state(self, **values: Any) -> None:
        """Remember something of the run."""
        write_atomically(self._state, json.dumps({**self.state, **values}, indent=2))

    def warm_start_report(self) -> dict[str, Any] | None:
        """What was carried over from an earlier model; None for a run that began by itself."""
        return _read(self.warm_start) if self.warm_start.exists() else None

    def cost_report(self) -> dict[str, Any] | None:
        """What the model costs next to the one that it was made from; None for one that was made from none."""
        return _read(self.cost) if self.cost.exists() else None

    def pretraining_report(self) -> dict[str, Any] | None:
        """How well a pre-training guesses hidden ids; None for a run that learns from labels."""
        return _read(self.pretraining) if self.pretraining.exists() else None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line to the curves."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop the curves of steps that a resumed run will do again, and a line that a killed run left half."""
        if not self.metrics.exists():
            return
        text = self.metrics.read_text(encoding="utf-8")
        whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        kept = "".join(line for line in whole if json.loads(line)["step"] <= step)
        if kept != text:
            write_atomically(self.metrics, kept)


# What may change between a run and its continuation without changing its numbers.
FREE_KEYS = (
    "tracking",
    "evaluation.baselines",
    "data.cache_dir",
    "data.encoded_cache",
    "data.memory_gb",
    "data.leak_auc",
    "data.allow_leaks",
    "training.keep_checkpoints",
    "training.checkpoint_every",
    "training.async_checkpoints",
    "training.timeout_s",
    "training.pipeline",
)

FILE_KEYS = ("data.train", "data.validation", "data.test")
"""Files may lie elsewhere when a run goes on, if they are the same."""

LEARNT_FROM = ("data.", "inputs.", "tasks.")
"""What vocabularies, statistics and the check of all rows depend on."""


def _as_read_now(stored: dict[str, Any]) -> dict[str, Any]:
    """The config of a run with what keys that are newer than it mean: their defaults."""
    try:
        return dump_config(experiment_from_json(json.dumps(stored)))
    except ConfigError:
        return with_stored_tasks(stored)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Key paths whose values differ."""
    changed: list[str] = []
    for key in {**old, **new}:
        path = f"{prefix}{key}"
        before, after = old.get(key), new.get(key)
        if path in FREE_KEYS or before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changed += _differences(before, after, f"{path}.")
        else:
            changed.append(path)
    return changed


def _read(path: Path) -> dict[str, Any]:
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it holds no object")
    except ValueError as error:
        raise TrainingError(
            f"{path} is damaged: {error}; put it back from a copy, or train again in another --run-dir"
        ) from error
    return values


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader finds the old or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    """A folder that is there and empty, and is gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
