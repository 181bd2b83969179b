"""Baselines: what simple models reach on the same rows, and how the model compares with them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from recmoe.errors import EvaluationError

BaselineKind = Literal["logistic_regression", "boosted_trees"]
"""Names of the kinds in ``recmoe/baselines``, as a config gives them."""

TITLES: dict[BaselineKind, str] = {"logistic_regression": "logistic regression", "boosted_trees": "boosted trees"}

Verdict = Literal["better", "as good", "worse", "unknown"]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; no bounds without resamples."""

    value: float | None
    """None where the metric is not defined."""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The model against one baseline, on the same rows, by the main metric of a task."""

    task: str
    space: str
    metric: str
    kind: BaselineKind
    model: Estimate
    baseline: Estimate
    advantage: Estimate
    """How much better the model is, with the interval of paired resamples; positive is better for any metric."""
    verdict: Verdict

    @property
    def warning(self) -> str | None:
        """What to worry about, in words; None where the model is at least as good."""
        if self.verdict != "worse":
            return None
        side = "above" if self.metric == "rmse" else "below"
        return (
            f"{self.task}: {self.metric.upper()} {in_words(self.model)} is {side} that of "
            f"{title(self.kind, self.metric)}, {in_words(self.baseline)}"
        )


@dataclass(frozen=True)
class Baselines:
    """Simple models, trained on the same split for one task each."""

    values: Mapping[BaselineKind, Mapping[str, Estimate]] = field(default_factory=dict)
    """By kind and by the name of a number: ``cvr.auc[click]``."""
    settings: Mapping[BaselineKind, Mapping[str, str]] = field(default_factory=dict)
    """By kind and task: what validation has chosen, in words."""
    missing: Mapping[BaselineKind, str] = field(default_factory=dict)
    """Kinds that could not be computed, and why."""
    chance: Mapping[str, float] = field(default_factory=dict)
    """What a random order gives, by the name of a metric over lists."""
    notes: tuple[str, ...] = ()
    """What was sampled down."""
    comparisons: tuple[Comparison, ...] = ()
    """By task and kind; empty as long as no model was compared."""

    @property
    def warnings(self) -> list[str]:
        """A line for every task and baseline that the model falls short of."""
        return [text for comparison in self.comparisons if (text := comparison.warning) is not None]

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Baselines":
        """What ``to_json`` gave.

        Raises:
            EvaluationError: it is something else.
        """
        try:
            return cls(
                values={
                    kind: {name: Estimate(**one) for name, one in values.items()}
                    for kind, values in document["values"].items()
                },
                settings=document["settings"],
                missing=document["missing"],
                chance=document["chance"],
                notes=tuple(document["notes"]),
                comparisons=tuple(_comparison(one) for one in document["comparisons"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise EvaluationError(
                f"not the baselines of a report ({type(error).__name__}: {error}); evaluate the model again"
            ) from error


def verdict(advantage: Estimate) -> Verdict:
    """What a paired difference says: better or worse where its interval leaves out zero.

    Args:
        advantage: how much better the model is, with its interval.
    """
    if advantage.low is None or advantage.high is None:
        return "unknown"
    if advantage.low > 0:
        return "better"
    return "worse" if advantage.high < 0 else "as good"


def title(kind: BaselineKind, metric: str) -> str:
    """A kind in words; the linear model of values is ridge regression."""
    return "ridge regression" if kind == "logistic_regression" and metric in ("rmse", "mae") else TITLES[kind]


def heading(kind: BaselineKind, names: Iterable[str]) -> str:
    """A kind over a column of numbers, such as ``cvr.auc[click]``; a name for both where it holds probabilities and
    values."""
    tasks: dict[str, str] = {}
    for name in names:
        task, _, metric = name.partition("[")[0].rpartition(".")
        # A task of values has metrics that probabilities have too, such as its calibration.
        if tasks.get(task, TITLES[kind]) == TITLES[kind]:
            tasks[task] = title(kind, metric)
    titles = set(tasks.values()) or {TITLES[kind]}
    return titles.pop() if len(titles) == 1 else "linear model"


def in_words(estimate: Estimate) -> str:
    """``0.735 [0.687, 0.776]``."""
    if estimate.value is None:
        return "not defined"
    if estimate.low is None or estimate.high is None:
        return _three(estimate.value)
    return f"{_three(estimate.value)} [{_three(estimate.low)}, {_three(estimate.high)}]"


def _three(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"


def _comparison(document: Mapping[str, Any]) -> Comparison:
    estimates = {name: Estimate(**document[name]) for name in ("model", "baseline", "advantage")}
    return Comparison(**{**document, **estimates})


def dump(baselines: Baselines) -> str:
    """The text of a file."""
    return json.dumps(baselines.to_json(), indent=1, allow_nan=False)
