"""StudySearch and Halving: Optuna's sampler and ASHA as Ray Tune asks them.

TPE: Bergstra et al., NeurIPS 2011. ASHA: Li et al., MLSys 2020, https://arxiv.org/abs/1810.05934.
Both are told what earlier calls of the same search have found, from its records.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.trial import TrialState, create_trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from pipelines.tuning.dimension import suggest
from pipelines.tuning.folder import Status, TrialRecord
from pipelines.tuning.space import Space
from recmoe.experiment import ExperimentConfig

NUM_RANDOM = 10
"""Trials drawn at random before TPE has enough to go by."""
REDUCTION = 3
"""One trial in so many goes on at each milestone."""
GRACE_SHARE = 0.2
"""Of the epochs, those that every trial may train."""


@dataclass
class RunningTrial:
    """A trial that Ray Tune has taken, and what it has reported so far."""

    number: int
    values: dict[str, Any]
    drawn: optuna.Trial | None
    """Of the study; None for a config as it stood that lies outside the space."""
    started_s: float = field(default_factory=time.monotonic)
    curve: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the best validation."""

    def add(self, result: Mapping[str, Any]) -> bool:
        """Take in a report; whether it is a new one."""
        if result.get("validation") != len(self.curve) + 1:
            return False
        self.curve.append(result["score"])
        if self.curve[-1] == max(self.curve) and self.curve.index(self.curve[-1]) == len(self.curve) - 1:
            self.metrics = {name.removeprefix("val/"): value for name, value in json.loads(result["values"]).items()}
        return True

    def record(self, status: Status, error: str | None = None) -> TrialRecord:
        """What is kept of it."""
        return TrialRecord(
            number=self.number,
            values=self.values,
            status=status,
            score=max(self.curve, default=None),
            curve=self.curve,
            metrics=self.metrics,
            seconds=round(time.monotonic() - self.started_s, 1),
            error=error,
        )


class StudySearch(Searcher):
    """Draws trials from an Optuna study; the first one is the config as it stands.

    Ray's own ``OptunaSearch`` knows no trials of earlier calls that were lost on their way, and no values outside the
    space.

    Args:
        base: the config that is tuned.
        records: trials of earlier calls.
        settings: what a trial needs beside its number and values.
        started, reported, ended: told of every trial; ``ended`` also whether Ray Tune calls it an error.
    """

    def __init__(
        self,
        base: ExperimentConfig,
        space: Space,
        records: Sequence[TrialRecord],
        *,
        settings: Mapping[str, Any],
        started: Callable[[RunningTrial], None],
        reported: Callable[[RunningTrial, int, Mapping[str, float]], None],
        ended: Callable[[RunningTrial, bool], TrialRecord],
    ) -> None:
        super().__init__(metric="best", mode="max")
        self.running: dict[str, RunningTrial] = {}
        self._base = base
        self._space = space
        self._settings = dict(settings)
        self._started, self._reported, self._ended = started, reported, ended
        self._study = study_of(records, base, space)
        self._next = max((record.number + 1 for record in records), default=0)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The settings of the next trial."""
        number, self._next = self._next, self._next + 1
        trial: optuna.Trial | None = None
        if number == 0:
            values = self._space.own_values(self._base)
            if self._space.holds(values):
                self._study.enqueue_trial(
                    {key: self._space.dimensions[key].encode(value) for key, value in values.items()}
                )
        if number > 0 or self._space.holds(values):
            asked = trial = self._study.ask()
            values = self._space.draw(
                self._base, lambda key, dimension, current: suggest(asked, key, dimension, current)
            )
        self.running[trial_id] = RunningTrial(number, values, trial)
        self._started(self.running[trial_id])
        return {**self._settings, "number": number, "values": json.dumps(values)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A validation of a trial."""
        trial = self.running[trial_id]
        if trial.add(result):
            self._reported(trial, result["step"], json.loads(result["values"]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The end of a trial: by itself, by the scheduler, or by an error."""
        if trial_id not in self.running:
            return
        if result is not None:
            self.on_trial_result(trial_id, result)
        trial = self.running.pop(trial_id)
        record = self._ended(trial, error)
        if trial.drawn is not None:
            is_failed = record.score is None
            state = TrialState.FAIL if is_failed else TrialState.COMPLETE
            self._study.tell(trial.drawn, None if is_failed else record.score, state=state)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray keeps a copy to restore a search from, and this one is restored from its records."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records are kept by whoever is told of them."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a new search is made of the records."""


class StopWhenOver(Stopper):
    """Ends all trials once ``is_over`` says so."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether one trial must end: the scheduler knows."""
        del trial_id, result
        return False

    def stop_all(self) -> bool:
        """Whether all must end."""
        return self._is_over()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the search."""
        return {}


def study_of(records: Sequence[TrialRecord], base: ExperimentConfig, space: Space) -> optuna.Study:
    """A study that knows the trials that are over; its sampler goes on with other numbers than before."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = TPESampler(seed=base.seed + len(records), n_startup_trials=NUM_RANDOM, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    own = space.own_values(base)
    for record in records:
        if not space.holds(record.values):
            continue
        known = {key: space.dimensions[key] for key in record.values}
        study.add_trial(
            create_trial(
                state=TrialState.FAIL if record.score is None else TrialState.COMPLETE,
                value=record.score,
                params={key: one.encode(record.values[key]) for key, one in known.items()},
                distributions={key: one.distribution(own.get(key)) for key, one in known.items()},
            )
        )
    return study


class Halving(ASHAScheduler):
    """ASHA over validations; the config as it stood always trains to its end, so that there is one to compare with.

    Args:
        num_validations: of a trial that is not stopped; None where that depends on its batches.
        records: trials of earlier calls, whose curves set the marks.
    """

    def __init__(self, num_validations: int | None, records: Sequence[TrialRecord]) -> None:
        super().__init__(
            time_attr="validation",
            metric="best",
            mode="max",
            # One more than there are: a trial ends by itself.
            max_t=(num_validations or 1000) + 1,
            grace_period=max(1, math.ceil((num_validations or 0) * GRACE_SHARE)),
            reduction_factor=REDUCTION,
        )
        for record in sorted(records, key=lambda record: record.number):
            trial = SimpleNamespace(trial_id=f"record-{record.number}", config={"number": record.number})
            self.on_trial_add(None, trial)
            for validation in range(1, len(record.curve) + 1):
                best = max(record.curve[:validation])
                self.on_trial_result(None, trial, {"validation": validation, "best": best})

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Go on or stop."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if trial.config["number"] == 0 else decision
