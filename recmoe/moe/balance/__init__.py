"""How evenly the gates use the experts: terms that even it out, one file each; the union is the registry."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Field, NonNegativeFloat, Tag

from recmoe.moe.balance.all_gates import AllGatesConfig
from recmoe.moe.balance.bias import BiasConfig
from recmoe.moe.balance.diversity import DiversityConfig
from recmoe.moe.balance.entropy import EntropyConfig
from recmoe.moe.balance.groups import GroupsConfig
from recmoe.moe.balance.importance import ImportanceConfig
from recmoe.moe.balance.load import LoadConfig
from recmoe.moe.balance.mutual_information import MutualInformationConfig
from recmoe.moe.balance.null_experts import NullExpertsBalanceConfig
from recmoe.moe.balance.stable import StableBalanceConfig
from recmoe.moe.balance.switch import SwitchBalanceConfig
from recmoe.moe.balance.term import BalanceTerm
from recmoe.moe.balance.usage import ExpertUsage, expert_usage
from recmoe.moe.balance.variance import VarianceConfig
from recmoe.moe.balance.z_loss import ZLossConfig

BalanceTermConfig = Annotated[
    ImportanceConfig
    | LoadConfig
    | SwitchBalanceConfig
    | ZLossConfig
    | EntropyConfig
    | VarianceConfig
    | MutualInformationConfig
    | GroupsConfig
    | AllGatesConfig
    | DiversityConfig
    | BiasConfig
    | NullExpertsBalanceConfig
    | StableBalanceConfig,
    Field(discriminator="kind"),
]


TermName = Annotated[str, Field(pattern=r"^\w+$")]


def _is_section(value: Any) -> str:
    return "terms" if isinstance(value, Mapping) else "number"


BalanceConfig = Annotated[
    Annotated[NonNegativeFloat, Tag("number")] | Annotated[dict[TermName, BalanceTermConfig], Tag("terms")],
    Discriminator(_is_section),
]
"""Terms by the names of their curves; a number is the weight of importance alone."""


def balance_terms(balance: float | Mapping[str, BalanceTermConfig]) -> Mapping[str, BalanceTermConfig]:
    """The terms of a config by name; none for a weight of 0."""
    if isinstance(balance, Mapping):
        return balance
    return {"importance": ImportanceConfig(weight=balance)} if balance else {}


__all__ = [
    "BalanceConfig",
    "BalanceTerm",
    "BalanceTermConfig",
    "ExpertUsage",
    "balance_terms",
    "expert_usage",
]
