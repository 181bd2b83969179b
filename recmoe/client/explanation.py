"""Explanation: what made the predictions of one candidate, as a server tells it and a client reads it."""

from dataclasses import dataclass
from typing import Literal

Unit = Literal["log-odds", "prediction"]


@dataclass(frozen=True, slots=True)
class FeatureAttribution:
    """How far one feature moved a prediction."""

    feature: str
    """Name of the feature, as in warnings."""
    value: float
    """Above 0 where it raised the prediction; 0 where it is missing."""


@dataclass(frozen=True, slots=True)
class TaskExplanation:
    """What moved the prediction of one task: ``predicted`` is ``base``, all of ``features`` and ``others`` together.

    Example: a click is predicted at 13 %, log-odds -1.90; of a request without any feature it would be at 10 %::

        predicted -1.90  =  base -2.20  +  item_id 0.41  +  hour -0.15  +  others 0.04
    """

    unit: Unit
    """What all numbers are: log-odds where the task predicts a probability, else the prediction's own unit."""
    predicted: float
    """The prediction of the answer."""
    base: float
    """What the model predicts where every feature is missing."""
    features: list[FeatureAttribution]
    """Shapley values of the features that moved the prediction most, the largest first, whatever their sign."""
    others: float
    """Sum over all other features."""


@dataclass(frozen=True, slots=True)
class GateWeights:
    """How one gate weighted the experts that it sees."""

    level: int
    """From 0; of a trunk below the architecture from -1 downwards."""
    gate: str
    """Whom it mixes for: a task, or what the architecture calls it."""
    weights: dict[str, float]
    """By expert; 0 where a sparse gate did not choose it."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What made the predictions of one candidate."""

    tasks: dict[str, TaskExplanation]
    gates: list[GateWeights]
    """From the bottom to the top; none in a model without experts."""
