"""The architectures; the union is the registry."""

from typing import Annotated

from pydantic import Field

from recmoe.architectures.adatt import AdaTTConfig
from recmoe.architectures.aitm import AITMConfig
from recmoe.architectures.cgc import CGC, CGCConfig
from recmoe.architectures.cross_stitch import CrossStitchConfig
from recmoe.architectures.dbmtl import DBMTLConfig
from recmoe.architectures.deepseek_moe import DeepSeekMoEConfig
from recmoe.architectures.escm2 import ESCM2Config
from recmoe.architectures.hierarchical import HierarchicalConfig
from recmoe.architectures.home import HoMEConfig
from recmoe.architectures.local_experts import LocalExpertsConfig
from recmoe.architectures.m3oe import M3oEConfig
from recmoe.architectures.mmoe import MMoE, MMoEConfig
from recmoe.architectures.moefied import MoefiedConfig
from recmoe.architectures.omoe import OMoE, OMoEConfig
from recmoe.architectures.pepnet import PEPNetConfig
from recmoe.architectures.ple import PLE, PLEConfig
from recmoe.architectures.resflow import ResFlowConfig
from recmoe.architectures.shared_bottom import SharedBottom, SharedBottomConfig
from recmoe.architectures.single_task import SingleTask, SingleTaskConfig
from recmoe.architectures.smes import SMESConfig
from recmoe.architectures.star import STARConfig
from recmoe.architectures.stem import STEMConfig
from recmoe.architectures.thor import THORConfig
from recmoe.plugins import ARCHITECTURES, Plugins

ArchitectureConfig = Annotated[
    SingleTaskConfig
    | SharedBottomConfig
    | OMoEConfig
    | MMoEConfig
    | CGCConfig
    | PLEConfig
    | AITMConfig
    | ESCM2Config
    | PEPNetConfig
    | STEMConfig
    | CrossStitchConfig
    | AdaTTConfig
    | HierarchicalConfig
    | DeepSeekMoEConfig
    | HoMEConfig
    | SMESConfig
    | STARConfig
    | M3oEConfig
    | ResFlowConfig
    | DBMTLConfig
    | THORConfig
    | MoefiedConfig
    | LocalExpertsConfig,
    Field(discriminator="kind"),
    Plugins(ARCHITECTURES),
]

__all__ = [
    "CGC",
    "PLE",
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
