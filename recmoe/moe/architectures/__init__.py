"""The architectures: wirings of gates to experts; the union is the registry."""

from typing import Annotated, Protocol

from pydantic import Field
from torch import Tensor

from recmoe.moe.architectures.cgc import CGC, CGCConfig
from recmoe.moe.architectures.mmoe import MMoE, MMoEConfig
from recmoe.moe.architectures.omoe import OMoE, OMoEConfig
from recmoe.moe.architectures.ple import PLE, PLEConfig
from recmoe.moe.architectures.shared_bottom import SharedBottom, SharedBottomConfig
from recmoe.moe.architectures.single_task import SingleTask, SingleTaskConfig
from recmoe.moe.expert_layer import GateUse
from recmoe.moe.linear import SidedInput


class Architecture(Protocol):
    """A module between the input and the towers."""

    out_features: int
    """Width H of every task's representation."""

    def __call__(self, x: Tensor | SidedInput) -> tuple[list[Tensor], list[GateUse]]:
        """One h_BH per task, in the order of the names it was built with, and the use of its gates, level by level."""
        ...


ArchitectureConfig = Annotated[
    SingleTaskConfig | SharedBottomConfig | OMoEConfig | MMoEConfig | CGCConfig | PLEConfig,
    Field(discriminator="kind"),
]

__all__ = [
    "CGC",
    "PLE",
    "Architecture",
    "ArchitectureConfig",
    "CGCConfig",
    "MMoE",
    "MMoEConfig",
    "OMoE",
    "OMoEConfig",
    "PLEConfig",
    "SharedBottom",
    "SharedBottomConfig",
    "SingleTask",
    "SingleTaskConfig",
]
