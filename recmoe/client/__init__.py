"""A client of the ranking API that needs nothing but Python."""

from recmoe.client.answers import (
    FeatureWarning,
    Health,
    ModelInfo,
    RankedItem,
    Ranking,
    Refusal,
    ScoreInfo,
    ServedModel,
    ServedTask,
)
from recmoe.client.client import RankClient
from recmoe.client.explanation import Explanation, FeatureAttribution, GateWeights, TaskExplanation

__all__ = [
    "Explanation",
    "FeatureAttribution",
    "FeatureWarning",
    "GateWeights",
    "Health",
    "ModelInfo",
    "RankClient",
    "RankedItem",
    "Ranking",
    "Refusal",
    "ScoreInfo",
    "ServedModel",
    "ServedTask",
    "TaskExplanation",
]
