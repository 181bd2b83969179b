"""Results: what has been measured so far, kept in results.json so that a benchmark that was cut off goes on."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from recmoe.errors import DataError
from recmoe.runs.folder import write_atomically

OURS = "recmoe"


@dataclass(frozen=True)
class Measurement:
    """One run of one participant."""

    participant: str
    model: str
    precision: str
    """Of peers ``shipped`` or ``tuned``, of recmoe ``fp32`` or ``bf16``."""
    purpose: str
    """``speed`` for some steps, ``epoch`` for a full one and the test AUC."""
    number: int
    """Round of a speed run, seed of an epoch."""
    num_steps: int | None
    """Asked for; None for an epoch."""
    values: dict[str, Any]
    """What the participant answered."""

    @property
    def key(self) -> tuple[str, ...]:
        """What it is the measurement of; a newer one takes the place of an older one."""
        return (*self.row, self.purpose, str(self.number))

    @property
    def row(self) -> tuple[str, str, str]:
        """The line of the table that it belongs to."""
        return (self.model, self.participant, self.precision)


@dataclass
class Results:
    """All measurements, the machine's rates and the work of each model."""

    settings: dict[str, Any]
    """Rows and seed of the log, batch size, device: what is measured with others is not compared."""
    measurements: list[Measurement] = field(default_factory=list)
    rates: list[dict[str, Any]] = field(default_factory=list)
    """One measurement of the machine at the start and one at the end of every run."""
    work: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of one step, by model."""

    @classmethod
    def load(cls, path: Path, settings: dict[str, Any]) -> "Results":
        """What an earlier run left; empty where there is nothing.

        Raises:
            DataError: the file is damaged, or holds results of other settings.
        """
        if not path.exists():
            return cls(settings)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            found = cls(
                values["settings"],
                [Measurement(**one) for one in values["measurements"]],
                values["rates"],
                values["work"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} holds no results: {error!r}; remove it, or use --fresh") from error
        if found.settings != settings:
            raise DataError(
                f"{path} holds results of {_listed(found.settings)}, not of {_listed(settings)}; "
                "choose another --to, or use --fresh"
            )
        return found

    def save(self, path: Path) -> None:
        """Write everything, the old file whole until the new one is."""
        write_atomically(path, json.dumps(asdict(self), indent=2) + "\n")

    def has(self, key: tuple[str, ...], num_steps: int | None) -> bool:
        """Whether this has been measured already, over as many steps."""
        return any(one.key == key and one.num_steps == num_steps for one in self.measurements)

    def add(self, measurement: Measurement) -> None:
        """Keep a measurement, in place of an older one of the same."""
        self.measurements = [one for one in self.measurements if one.key != measurement.key] + [measurement]

    def rows(self) -> list["Row"]:
        """One row per model, participant and precision; recmoe comes first."""
        seen = sorted(
            {one.row for one in self.measurements}, key=lambda place: (place[0], place[1] != OURS, *place[1:])
        )
        return [Row.of([one for one in self.measurements if one.row == place]) for place in seen]


@dataclass(frozen=True)
class Row:
    """A line of the table: means over rounds, and over seeds."""

    participant: str
    model: str
    precision: str
    samples_per_s: float
    """End to end, reading included; from the speed runs, or the epochs where there are none."""
    ready_samples_per_s: float | None
    wait_share: float | None
    """Share of the step spent waiting for data; only recmoe tells."""
    peak_gib: float
    helpers_gib: float
    prepare_s: float
    auc: dict[str, list[float]]
    """Test AUC by task, one per seed."""

    @classmethod
    def of(cls, measurements: list[Measurement]) -> "Row":
        """The row of some measurements of the same thing."""
        first = measurements[0]
        speeds = [one.values for one in measurements if one.purpose == "speed"]
        epochs = [one.values for one in measurements if one.purpose == "epoch"]
        timed = speeds or epochs
        tasks = dict.fromkeys(task for values in epochs for task in values["auc"])
        return cls(
            participant=first.participant,
            model=first.model,
            precision=first.precision,
            samples_per_s=mean(values["samples_per_s"] for values in timed),
            ready_samples_per_s=_mean_of(timed, "ready_samples_per_s"),
            wait_share=_mean_of(timed, "wait_share"),
            peak_gib=max(values["peak_gib"] for values in timed),
            helpers_gib=max(values["helpers_gib"] for values in timed),
            prepare_s=mean(values["prepare_s"] for values in timed),
            auc={task: [values["auc"][task] for values in epochs] for task in tasks},
        )

    def mean_auc(self, task: str) -> float | None:
        """Mean over the seeds; None where no epoch was run."""
        return mean(self.auc[task]) if self.auc.get(task) else None


def fastest(rows: Iterable[Row]) -> Row | None:
    """The row with the most samples per second; None of none."""
    return max(rows, key=lambda row: row.samples_per_s, default=None)


def _mean_of(values: list[dict[str, Any]], name: str) -> float | None:
    known = [one[name] for one in values if one.get(name) is not None]
    return mean(known) if known else None


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())
