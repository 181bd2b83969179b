"""Request → ordered items."""

from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import RankRequest, RankResponse
from recmoe.ranking.score import RankingConfig, ScoreFormula

__all__ = ["RankRequest", "RankResponse", "Ranker", "RankingConfig", "ScoreFormula"]
