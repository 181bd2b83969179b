"""The experts; the union is the registry."""

from typing import Annotated

from pydantic import Field

from recmoe.moe.experts.cross import CrossExpertConfig
from recmoe.moe.experts.gated import GatedExpertConfig
from recmoe.moe.experts.identity import IdentityExpertConfig
from recmoe.moe.experts.low_rank import LowRankExpertConfig
from recmoe.moe.experts.mlp import MlpExpertConfig, MlpExperts
from recmoe.moe.experts.normalized import NormalizedExpertConfig
from recmoe.moe.experts.peer import PeerExpertConfig
from recmoe.moe.experts.soft import SoftExpertConfig
from recmoe.moe.experts.stack import ExpertStack, Form
from recmoe.plugins import EXPERTS, Plugins

ExpertConfig = Annotated[
    MlpExpertConfig
    | LowRankExpertConfig
    | IdentityExpertConfig
    | GatedExpertConfig
    | CrossExpertConfig
    | NormalizedExpertConfig
    | PeerExpertConfig
    | SoftExpertConfig,
    Field(discriminator="kind"),
    Plugins(EXPERTS),
]

__all__ = ["ExpertConfig", "ExpertStack", "Form", "MlpExpertConfig", "MlpExperts"]
