"""Rules by which the rows of a training batch share out the experts; the union is the registry.

They mix rows, so none of them evaluates or serves: a row is then given what its gate chooses for it alone.
"""

from typing import Annotated

from pydantic import Field

from recmoe.moe.gates.in_training.batch_priority import BatchPriorityConfig
from recmoe.moe.gates.in_training.expert_choice import ExpertChoiceConfig
from recmoe.moe.gates.in_training.first_come import FirstComeConfig

InTrainingConfig = Annotated[FirstComeConfig | BatchPriorityConfig | ExpertChoiceConfig, Field(discriminator="kind")]

__all__ = ["InTrainingConfig"]
