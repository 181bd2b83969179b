"""The gates; the union is the registry."""

from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field

from recmoe.moe.gates.attention import AttentionGateConfig
from recmoe.moe.gates.cosine import CosineGateConfig
from recmoe.moe.gates.dselect_k import DSelectKGateConfig
from recmoe.moe.gates.fallback import FallbackGateConfig
from recmoe.moe.gates.gumbel import GumbelGateConfig
from recmoe.moe.gates.hash import HashGateConfig
from recmoe.moe.gates.in_training import InTrainingConfig
from recmoe.moe.gates.mlp import MlpGateConfig
from recmoe.moe.gates.noisy_top_k import NoisyTopKGateConfig
from recmoe.moe.gates.null_experts import NullExpertsGateConfig
from recmoe.moe.gates.policy import PolicyGateConfig
from recmoe.moe.gates.random import RandomGateConfig
from recmoe.moe.gates.relu import ReluGateConfig
from recmoe.moe.gates.softmax import SoftmaxGate, SoftmaxGateConfig
from recmoe.moe.gates.stable import StableGateConfig
from recmoe.moe.gates.switch import SwitchGateConfig
from recmoe.moe.gates.top_k import TopKGate, TopKGateConfig
from recmoe.plugins import GATES, Plugins


def _serving(value: Any) -> Any:
    """Refuse rules that mix the rows of a batch where a gate is asked for, which has to serve too."""
    rules = [rule.model_fields["kind"].default for rule in get_args(get_args(InTrainingConfig)[0])]
    if isinstance(value, dict) and value.get("kind") in rules:
        raise ValueError(
            f"{value['kind']} mixes the rows of a batch, so it cannot serve; say what serves, and where it trains: "
            f"gate: {{kind: switch, in_training: {{kind: {value['kind']}}}}}"
        )
    return value


GateConfig = Annotated[
    SoftmaxGateConfig
    | TopKGateConfig
    | MlpGateConfig
    | NoisyTopKGateConfig
    | CosineGateConfig
    | DSelectKGateConfig
    | GumbelGateConfig
    | AttentionGateConfig
    | ReluGateConfig
    | SwitchGateConfig
    | NullExpertsGateConfig
    | HashGateConfig
    | FallbackGateConfig
    | RandomGateConfig
    | PolicyGateConfig
    | StableGateConfig,
    Field(discriminator="kind"),
    BeforeValidator(_serving),
    Plugins(GATES),
]

__all__ = ["GateConfig", "SoftmaxGate", "SoftmaxGateConfig", "TopKGate", "TopKGateConfig"]
