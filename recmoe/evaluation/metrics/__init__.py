"""Metrics; the union is their registry. To add one: a file, and its config class here."""

from typing import Annotated, get_args

from pydantic import Field

from recmoe.errors import EvaluationError
from recmoe.evaluation.metrics.auc import AucConfig
from recmoe.evaluation.metrics.calibration import CalibrationConfig
from recmoe.evaluation.metrics.ece import EceConfig
from recmoe.evaluation.metrics.gauc import GaucImpressionConfig, GaucUserMeanConfig
from recmoe.evaluation.metrics.logloss import LogLossConfig
from recmoe.evaluation.metrics.mae import MaeConfig
from recmoe.evaluation.metrics.mrr import MrrConfig
from recmoe.evaluation.metrics.ndcg import NdcgConfig
from recmoe.evaluation.metrics.normalized_entropy import NormalizedEntropyConfig
from recmoe.evaluation.metrics.recall import RecallConfig
from recmoe.evaluation.metrics.rmse import RmseConfig
from recmoe.tasks import TASK_KINDS
from recmoe.tasks.task import Best, Measure

MetricConfig = Annotated[
    AucConfig
    | LogLossConfig
    | NormalizedEntropyConfig
    | CalibrationConfig
    | EceConfig
    | RmseConfig
    | MaeConfig
    | GaucUserMeanConfig
    | GaucImpressionConfig
    | NdcgConfig
    | MrrConfig
    | RecallConfig,
    Field(discriminator="kind"),
]

METRIC_KINDS: tuple[type[MetricConfig], ...] = get_args(get_args(MetricConfig)[0])
"""The members of the union, in the order in which a report lists them."""

MEASURES: dict[str, Measure] = {name: measure for kind in TASK_KINDS for name, measure in kind.measures.items()}
"""Metrics that kinds of tasks bring themselves, by name up to an @."""


def metric_best(name: str) -> Best:
    """Where a metric is best: highest, lowest, or at 1.

    Args:
        name: a metric's name as in a report, ``auc`` or ``ndcg@10``; task and space around it may be there.

    Raises:
        EvaluationError: no metric has this name.
    """
    kind = name.split("[")[0].split("@")[0].rpartition(".")[2]
    for config in METRIC_KINDS:
        if config.model_fields["kind"].default == kind:
            return config.best
    if kind in MEASURES:
        return MEASURES[kind].best
    kinds = [str(config.model_fields["kind"].default) for config in METRIC_KINDS]
    known = ", ".join([*kinds, *(measure for measure in MEASURES if measure not in kinds)])
    raise EvaluationError(f"no such metric: {name}; there are {known}")
