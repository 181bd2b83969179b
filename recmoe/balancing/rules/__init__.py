"""How the gradients of tasks become one; the union is the registry."""

from typing import Annotated

from pydantic import Field

from recmoe.balancing.rules.aligned_mtl import AlignedMTLConfig
from recmoe.balancing.rules.cagrad import CAGradConfig
from recmoe.balancing.rules.imtl_g import IMTLGConfig
from recmoe.balancing.rules.mgda import MGDAConfig
from recmoe.balancing.rules.nash_mtl import NashMTLConfig
from recmoe.balancing.rules.none import NoBalancingConfig
from recmoe.balancing.rules.pcgrad import PCGradConfig
from recmoe.balancing.rules.sum import SumConfig
from recmoe.balancing.rules.upgrad import UPGradConfig

BalancingConfig = Annotated[
    NoBalancingConfig
    | SumConfig
    | PCGradConfig
    | CAGradConfig
    | MGDAConfig
    | NashMTLConfig
    | IMTLGConfig
    | AlignedMTLConfig
    | UPGradConfig,
    Field(discriminator="kind"),
]

__all__ = [
    "AlignedMTLConfig",
    "BalancingConfig",
    "CAGradConfig",
    "IMTLGConfig",
    "MGDAConfig",
    "NashMTLConfig",
    "NoBalancingConfig",
    "PCGradConfig",
    "SumConfig",
    "UPGradConfig",
]
