"""A kind is known to its own file and to its union: to add one is a file and a line."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from recmoe.architectures import ArchitectureConfig
from recmoe.architectures.trunks import TrunkConfig
from recmoe.balancing.rules import BalancingConfig
from recmoe.balancing.weightings import WeightingConfig
from recmoe.features.kinds import FeatureConfig
from recmoe.moe.balance import BalanceTermConfig
from recmoe.moe.experts import ExpertConfig
from recmoe.moe.gates import GateConfig
from recmoe.moe.gates.in_training import InTrainingConfig
from recmoe.sequence import HistoryEncoderConfig
from recmoe.tasks import TaskConfig

ROOT = Path(__file__).parent.parent
SOURCES = {
    path: path.read_text(encoding="utf-8")
    for folder in ("recmoe", "pipelines", "serving")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
UNIONS: tuple[Any, ...] = (
    ArchitectureConfig,
    BalanceTermConfig,
    BalancingConfig,
    ExpertConfig,
    FeatureConfig,
    GateConfig,
    HistoryEncoderConfig,
    InTrainingConfig,
    TaskConfig,
    TrunkConfig,
    WeightingConfig,
)
KINDS: list[type] = [kind for union in UNIONS for kind in get_args(get_args(union)[0])]
DEFAULTS = {
    "FirstComeConfig": {"recmoe/moe/gates/switch.py"},
    "FixedWeightingConfig": {"recmoe/model/config.py"},
    "MMoEConfig": {"recmoe/model/config.py"},
    "MlpExpertConfig": {"recmoe/architectures/thor.py", "recmoe/moe/mixture.py"},
    "NoBalancingConfig": {"recmoe/model/config.py"},
    "NoTrunkConfig": {"recmoe/model/config.py"},
    "NormalizedExpertConfig": {"recmoe/architectures/home.py"},
    "SoftmaxGateConfig": {"recmoe/moe/mixture.py"},
    "TargetAttentionConfig": {"recmoe/features/kinds/sequence.py"},
    "TopKGateConfig": {"recmoe/architectures/deepseek_moe.py"},
}
"""Which other files name a kind: where it is what a config takes by default."""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_kind_is_named_by_its_file_its_union_and_where_it_is_the_default(kind: type) -> None:
    own = ROOT / f"{kind.__module__.replace('.', '/')}.py"
    at_home = {own, own.parent / "__init__.py"}

    named = {
        path.relative_to(ROOT).as_posix()
        for path, text in SOURCES.items()
        if path not in at_home and re.search(rf"\b{kind.__name__}\b", text)
    }

    assert named == DEFAULTS.get(kind.__name__, set())
