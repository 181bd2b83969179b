"""light: a lighter version of a model, for requests that the champion would rank too late."""

import time
from dataclasses import replace

from recmoe.features.columns import shown_names
from recmoe.ranking.ranked import Ranked
from recmoe.ranking.ranker import Ranker
from recmoe.ranking.request import FeatureWarning

WARNING = FeatureWarning(feature="deadline", code="lighter_model", count=1)
"""Of every answer that the lighter version gave in the place of another one."""
_TRIES = 3


def misfit(light: Ranker, champion: Ranker) -> str | None:
    """Why a version cannot answer in the place of the champion; None where it can."""
    version = f"version {light.info.version}"
    if light.info.digest == champion.info.digest:
        return f"{version} is the champion itself"
    for what, has, needed in (
        ("task", light.task_names, champion.task_names),
        ("score", light.scores.formulas, champion.scores.formulas),
    ):
        missing = [name for name in needed if name not in has]
        if missing:
            return f"{version} has no {what} {shown_names(missing)}, which the champion has"
    return None


def marked(ranked: Ranked) -> Ranked:
    """A ranking that says that another version would have been late."""
    return replace(ranked, warnings=[*ranked.warnings, WARNING])


def replay_s(ranker: Ranker) -> float:
    """Seconds that a model takes for the rows of its replay, once it is warm."""
    took_s = []
    for _ in range(_TRIES):
        start_s = time.perf_counter()
        ranker.score(ranker.bundle.replay.rows)
        took_s.append(time.perf_counter() - start_s)
    return min(took_s)
