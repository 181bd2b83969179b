"""ModelConfig: the section ``model`` of a config."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from recmoe.architectures import ArchitectureConfig, MMoEConfig
from recmoe.config import Config
from recmoe.model.wide import LinearWideConfig, WideConfig
from recmoe.tasks.tower import TowerConfig
from recmoe.tasks.weighting import FixedWeightingConfig, WeightingConfig

DEFAULT_UNKNOWN_SHARE = 0.01
"""Share of the ids that are hidden where nothing is known of new ones."""
MAX_UNKNOWN_SHARE = 0.5


class ModelConfig(Config):
    """Everything between the tables and the loss."""

    architecture: ArchitectureConfig = MMoEConfig()
    """How tasks share experts."""
    towers: TowerConfig = TowerConfig()
    """The head of each task."""
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Features that a gate or an architecture reads by a name of its own, such as ``domain: [country, page]``."""
    wide: WideConfig = LinearWideConfig()
    """What stands beside the experts: a linear part over ids and numbers, or nothing."""
    weighting: WeightingConfig = FixedWeightingConfig()
    """How the losses of the tasks become one."""
    balance: NonNegativeFloat = 0.0
    """Factor of the balance loss, which keeps gates from leaving experts unused."""
    unknown_share: Literal["auto"] | Annotated[float, Field(ge=0.0, lt=1.0)] = "auto"
    """Share of the ids that a training step reads as unknown, so that row 0 learns what a new id is worth; auto is, for
    each feature, the share of its ids in the validation split that training has not seen, from 0.01 to 0.5."""

    def unknown_shares(self, keys: Sequence[str], measured: Mapping[str, float]) -> list[float]:
        """Per sparse key, the share of its ids that a training step hides.

        Args:
            keys: of the layout, in its order.
            measured: by key, the share of ids in the validation split that training has not seen, where it is known.
        """
        if self.unknown_share != "auto":
            return [self.unknown_share] * len(keys)
        shares = (measured.get(key, DEFAULT_UNKNOWN_SHARE) for key in keys)
        return [min(max(share, DEFAULT_UNKNOWN_SHARE), MAX_UNKNOWN_SHARE) for share in shares]
