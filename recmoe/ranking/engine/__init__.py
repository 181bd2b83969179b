"""Where and how a ranker computes: on the CPU or a GPU, call by call or in recorded passes, alone or together."""

from recmoe.ranking.engine.device import DEVICE_PATTERN, ranking_device
from recmoe.ranking.engine.engine import Engine
from recmoe.ranking.engine.place import build_engine, explaining

__all__ = ["DEVICE_PATTERN", "Engine", "build_engine", "explaining", "ranking_device"]
