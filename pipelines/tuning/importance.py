"""importances(): how much each searched key had to do with the best scores.

PED-ANOVA: Watanabe et al., IJCAI 2023, https://arxiv.org/abs/2304.10255.
"""

import math
import warnings
from collections.abc import Sequence

from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from pipelines.tuning.folder import TrialRecord
from pipelines.tuning.search import study_of
from pipelines.tuning.space import Space
from recmoe.experiment import ExperimentConfig

MIN_TRIALS = 10
"""With a score and inside the space; fewer say nothing."""
MIN_BEST = 5
"""Trials that count as the best ones, at least."""
BEST_SHARE = 0.1
"""Of the trials, those that count as the best ones, where that is more."""


def importances(records: Sequence[TrialRecord], base: ExperimentConfig, space: Space) -> dict[str, float]:
    """Share of each key in what sets the best trials apart from all; they sum to one, the largest comes first.

    Empty where too few trials have a score, or all have the same.
    """
    usable = [record for record in records if record.score is not None and space.holds(record.values)]
    if len(usable) < MIN_TRIALS or len({record.score for record in usable}) == 1:
        return {}
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(BEST_SHARE, min(0.5, MIN_BEST / len(usable))))
    with warnings.catch_warnings(action="ignore"):
        found = get_param_importances(study_of(usable, base, space), evaluator=evaluator)
    return {key: float(share) for key, share in found.items() if math.isfinite(share)}
