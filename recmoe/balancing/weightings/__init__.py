"""How the losses of tasks become one; the union is the registry."""

from typing import Annotated

from pydantic import Field

from recmoe.balancing.weightings.dwa import DWAWeightingConfig
from recmoe.balancing.weightings.famo import FAMOWeightingConfig
from recmoe.balancing.weightings.fixed import FixedWeightingConfig
from recmoe.balancing.weightings.gradnorm import GradNormWeightingConfig
from recmoe.balancing.weightings.uncertainty import UncertaintyWeightingConfig
from recmoe.balancing.weightings.weighting import Weighting

WeightingConfig = Annotated[
    FixedWeightingConfig
    | UncertaintyWeightingConfig
    | GradNormWeightingConfig
    | DWAWeightingConfig
    | FAMOWeightingConfig,
    Field(discriminator="kind"),
]

__all__ = [
    "DWAWeightingConfig",
    "FAMOWeightingConfig",
    "FixedWeightingConfig",
    "GradNormWeightingConfig",
    "UncertaintyWeightingConfig",
    "Weighting",
    "WeightingConfig",
]
