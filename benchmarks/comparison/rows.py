"""Rows of the table: a variant over its seeds, with intervals, and set beside the references in words."""

# R resamples, S seeds

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from benchmarks.comparison.sizes import Sizes
from benchmarks.comparison.trainings import Result
from benchmarks.comparison.variants import REFERENCES
from recmoe.evaluation.baselines import Estimate, verdict
from recmoe.evaluation.bootstrap import percentiles
from recmoe.evaluation.metrics import metric_best

Floats = npt.NDArray[np.float64]

WORDS = {"better": "better", "as good": "no difference", "worse": "worse", "unknown": "unknown"}


@dataclass(frozen=True)
class Difference:
    """A variant less a reference; positive is better for any metric."""

    advantage: Estimate
    """With the interval of paired resamples, of test rows and of seeds."""

    @property
    def word(self) -> str:
        """better or worse where the interval leaves out zero, else no difference."""
        return WORDS[verdict(self.advantage)]


@dataclass(frozen=True)
class Cell:
    """One metric of one row."""

    estimate: Estimate
    """Mean over the seeds, with its interval over test rows."""
    spread: float = 0.0
    """Half the range over the seeds."""
    against: Mapping[str, Difference] = field(default_factory=dict)
    """By reference."""


@dataclass(frozen=True)
class Row:
    """One model on one log."""

    name: str
    cells: Mapping[str, Cell]
    """By metric."""
    num_seeds: int = 0
    """0 for what needs no training."""
    trial: int | None = None
    """The chosen one; None where there was no choice."""
    sizes: Sizes | None = None
    samples_per_s: float | None = None


def rows_of(
    results: Mapping[str, Sequence[Result]],
    *,
    known: Mapping[str, Mapping[str, float]],
    metrics: Sequence[str],
    samples_per_s: Mapping[str, float | None] | None = None,
) -> list[Row]:
    """All rows of a log: what is known without training, the models, each beside the references that are there.

    Args:
        results: by model, one result per seed, of equal resamples.
        known: metrics of the test split by who reaches them.
        samples_per_s: by model, where it is measured.
    """
    rows = [
        Row(name, {metric: Cell(Estimate(values[metric])) for metric in metrics if metric in values})
        for name, values in known.items()
    ]
    for name, of_seeds in results.items():
        first = of_seeds[0]
        rows.append(
            Row(
                name,
                {metric: _cell(metric, name, results) for metric in metrics if metric in first.metrics},
                num_seeds=len(of_seeds),
                trial=None if first.score is None else first.trial,
                sizes=first.sizes,
                samples_per_s=(samples_per_s or {}).get(name),
            )
        )
    return rows


def _cell(metric: str, name: str, results: Mapping[str, Sequence[Result]]) -> Cell:
    values = [one.metrics[metric].value for one in results[name]]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return Cell(Estimate(None))
    sign = 1.0 if metric_best(metric) == "highest" else -1.0
    mean = float(np.mean(known))
    bounds = percentiles(_resamples(metric, results[name]).mean(axis=0))
    against = {}
    for reference in REFERENCES:
        others = [one.metrics[metric].value for one in results.get(reference, ())]
        if reference == name or not others or None in others:
            continue
        difference_R = sign * (_drawn(metric, name, results) - _drawn(metric, reference, results))
        value = sign * (mean - float(np.mean([other for other in others if other is not None])))
        against[reference] = Difference(_estimate(value, percentiles(difference_R)))
    return Cell(_estimate(mean, bounds), (max(known) - min(known)) / 2, against)


def _resamples(metric: str, of_seeds: Sequence[Result]) -> Floats:
    """values_SR."""
    return np.array([one.metrics[metric].values_R for one in of_seeds], dtype=np.float64)


def _drawn(metric: str, name: str, results: Mapping[str, Sequence[Result]]) -> Floats:
    """values_R of the mean over as many seeds, which are drawn anew in every resample, as its rows are."""
    values_SR = _resamples(metric, results[name])
    num_seeds, num_resamples = values_SR.shape
    # Of one's own for each model: what one seed gives says nothing about the same seed of another model.
    draws = np.random.default_rng(zlib.crc32(name.encode()))
    seed_RS = draws.integers(num_seeds, size=(num_resamples, num_seeds))
    drawn_R: Floats = values_SR[seed_RS.T, np.arange(num_resamples)].mean(axis=0)
    return drawn_R


def _estimate(value: float, bounds: tuple[float, float] | None) -> Estimate:
    low, high = bounds or (None, None)
    return Estimate(value, low, high)
