"""The gates; the union is the registry."""

from typing import Annotated

from pydantic import Field

from recmoe.moe.gates.attention import AttentionGateConfig
from recmoe.moe.gates.cosine import CosineGateConfig
from recmoe.moe.gates.dselect_k import DSelectKGateConfig
from recmoe.moe.gates.gumbel import GumbelGateConfig
from recmoe.moe.gates.mlp import MlpGateConfig
from recmoe.moe.gates.noisy_top_k import NoisyTopKGateConfig
from recmoe.moe.gates.softmax import SoftmaxGate, SoftmaxGateConfig
from recmoe.moe.gates.top_k import TopKGate, TopKGateConfig

GateConfig = Annotated[
    SoftmaxGateConfig
    | TopKGateConfig
    | MlpGateConfig
    | NoisyTopKGateConfig
    | CosineGateConfig
    | DSelectKGateConfig
    | GumbelGateConfig
    | AttentionGateConfig,
    Field(discriminator="kind"),
]

__all__ = ["GateConfig", "SoftmaxGate", "SoftmaxGateConfig", "TopKGate", "TopKGateConfig"]
