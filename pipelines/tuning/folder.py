"""TuneFolder: where a search keeps what it finds, so that a killed one can go on."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from recmoe.config import dump_config
from recmoe.errors import TrainingError
from recmoe.experiment import ExperimentConfig, experiment_from_json
from recmoe.runs.folder import write_atomically

Status = Literal["finished", "stopped", "cut", "failed"]
"""Trained to its end, given up for better ones, out of time, or ended by an error."""


@dataclass(frozen=True)
class TrialRecord:
    """What one trial has shown."""

    number: int
    """From 0, which is the config as it stood."""
    values: dict[str, Any]
    """The keys that were searched, with what this trial had there."""
    status: Status
    score: float | None
    """The best of its validations; higher is better. None for a trial without any."""
    curve: list[float] = field(default_factory=list)
    """The score of each validation."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the best validation, by name."""
    seconds: float = 0.0
    error: str | None = None
    """Why it failed."""


class TuneFolder:
    """The files of one search::

    tune.json      the config as it stood, the search space, the MLflow run
    trials.jsonl   a line per trial that is over
    best.yaml      the best config so far
    tune.html      what mattered
    trials/        a run folder per trial: its config and curves
    work/          encoded rows that trials share, while the search lasts
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.best = root / "best.yaml"
        self.page = root / "tune.html"
        self.records_file = root / "trials.jsonl"
        self.trials = root / "trials"
        self.work = root / "work"
        self._search = root / "tune.json"

    def start(self, config: ExperimentConfig, space: Mapping[str, Any], *, resume: bool) -> None:
        """Claim the folder for a search, or check that it belongs to the same one.

        Raises:
            TrainingError: it holds another search, one and ``resume`` is off, or other files.
        """
        told = {"config": dump_config(config), "space": dict(space)}
        if not self._search.exists():
            if self.root.exists() and any(self.root.iterdir()):
                raise TrainingError(f"{self.root} is not empty and holds no search; choose another --to")
            self.root.mkdir(parents=True, exist_ok=True)
            self._write(told)
            return
        if not resume:
            raise TrainingError(f"{self.root} holds a search already; go on with --resume or choose another --to")
        known = self._read()
        for part, name in (("config", "config"), ("space", "search space")):
            keys = sorted(_changed_keys(known[part], told[part])) if known[part] != told[part] else []
            if keys:
                raise TrainingError(
                    f"{self.root} was started with another {name}: {', '.join(keys)}; resume with the same, "
                    "or choose another --to"
                )

    @property
    def config(self) -> ExperimentConfig:
        """The config as it stood."""
        return experiment_from_json(json.dumps(self._read()["config"]), source=str(self._search))

    @property
    def tracking_run_id(self) -> str | None:
        """The run of the whole search where it is recorded."""
        return self._read().get("tracking_run_id")

    def remember(self, *, tracking_run_id: str | None) -> None:
        """Keep where the search is recorded."""
        self._write({**self._read(), "tracking_run_id": tracking_run_id})

    def check_rows(self, files: Sequence[str]) -> None:
        """Remember the identity of the files that the search compares on, or check that they are still those.

        Raises:
            TrainingError: they have changed since.
        """
        told = self._read()
        if told.get("files", list(files)) != list(files):
            raise TrainingError(
                f"{self.root}: the files of train or validation have changed since the search began, and scores before "
                "and after cannot be compared; put them back as they were, or choose another --to"
            )
        self._write({**told, "files": list(files)})

    def records(self) -> list[TrialRecord]:
        """Trials that are over, in the order in which they ended; a line that a killed process left half is not.

        Raises:
            TrainingError: a line in the middle is damaged.
        """
        if not self.records_file.exists():
            return []
        lines = self.records_file.read_text(encoding="utf-8").split("\n")
        records = []
        for number, line in enumerate(lines[:-1], start=1):
            try:
                records.append(TrialRecord(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise TrainingError(
                    f"{self.records_file}:{number}  the line is damaged ({error}); remove it and resume"
                ) from error
        return records

    def add(self, record: TrialRecord) -> None:
        """Keep what a trial has shown."""
        text = self.records_file.read_text(encoding="utf-8") if self.records_file.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        write_atomically(self.records_file, f"{whole}{json.dumps(asdict(record))}\n")

    def trial(self, number: int) -> Path:
        """The run folder of a trial."""
        return self.trials / f"{number:03d}"

    def clear_trial(self, number: int) -> None:
        """Remove what is of no more use once a trial is over: weights and encoder."""
        for part in ("checkpoints", "encoder"):
            shutil.rmtree(self.trial(number) / part, ignore_errors=True)

    def _read(self) -> dict[str, Any]:
        try:
            values = json.loads(self._search.read_text(encoding="utf-8"))
            assert isinstance(values, dict)
            return values
        except ValueError as error:
            raise TrainingError(f"{self._search} is damaged: {error}; start afresh in another --to") from error

    def _write(self, values: Mapping[str, Any]) -> None:
        write_atomically(self._search, json.dumps(values, indent=2))


def best_of(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The trial with the highest score; the earlier of two equal ones."""
    scored = [record for record in records if record.score is not None]
    return max(scored, key=lambda record: (record.score, -record.number), default=None)


def _changed_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Key paths whose values differ."""
    changed: list[str] = []
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changed += _changed_keys(before, after, f"{prefix}{key}.")
        elif before != after:
            changed.append(f"{prefix}{key}")
    return changed
