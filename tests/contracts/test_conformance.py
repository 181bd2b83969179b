"""What recmoe asks of anybody's gate, expert, architecture and trunk holds for every kind of its own."""

from typing import get_args

import pytest

from recmoe.architectures import ArchitectureConfig
from recmoe.architectures.trunks import NoTrunkConfig, TrunkConfig
from recmoe.config import Config
from recmoe.conformance import PROPERTIES, Property, subject_of
from recmoe.conformance.subject import role_of
from recmoe.moe.experts import ExpertConfig
from recmoe.moe.gates import GateConfig

UNIONS = (GateConfig, ExpertConfig, ArchitectureConfig, TrunkConfig)
KINDS = [kind for union in UNIONS for kind in get_args(get_args(union)[0]) if kind is not NoTrunkConfig]
CASES = [
    pytest.param(kind, one, id=f"{role}-{kind.model_fields['kind'].default}-{one.name}")
    for kind in KINDS
    for role in [role_of(kind)]
    if role is not None
    for one in PROPERTIES[role]
]


@pytest.mark.parametrize(("kind", "one"), CASES)
def test_property_holds(kind: type[Config], one: Property) -> None:
    outcome = one.of(subject_of(kind))

    assert outcome.verdict != "failed", outcome.sentence


def test_every_kind_has_a_role() -> None:
    roles = {kind.__name__: role_of(kind) for kind in KINDS}

    assert None not in roles.values()


OTHER_FORMS = {
    "adatt": ["num_levels=3", "num_shared_experts=1"],
    "cross_stitch": ["own=1"],
    "hierarchical": ["num_groups=2"],
    "home": ["groups={seen: [click, rate], bought: [buy]}", "num_shared_experts=1"],
    "smes": ["num_joint=1", "num_experts=4"],
}


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_gradients_flow_as_declared_in_other_forms(name: str) -> None:
    [kind] = [kind for kind in KINDS if kind.model_fields["kind"].default == name]
    [flow] = [one for one in PROPERTIES["architecture"] if one.name == "gradients flow as declared"]

    outcome = flow.of(subject_of(kind, overrides=OTHER_FORMS[name]))

    assert outcome.verdict == ("not applicable" if name == "cross_stitch" else "passed"), outcome.sentence
