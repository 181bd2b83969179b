"""Models whose recorded passes are compared: every architecture, trunk, gate and encoder of histories."""

import typing
from typing import Any

from recmoe.architectures import ArchitectureConfig
from recmoe.moe.gates import GateConfig
from recmoe.sequence import HistoryEncoderConfig
from tests.parity.test_histories_are_served_as_trained import history
from tests.parity.test_served_scores_equal_training_scores import TRUNKS


def _kinds(union: Any) -> list[str]:
    return [member.model_fields["kind"].default for member in typing.get_args(typing.get_args(union)[0])]


_GATES: dict[str, dict[str, Any]] = {"hash": {"feature": "item_id"}, "stable": {"feature": ["item_id", "user_id"]}}
"""What some gates need."""

MODELS: dict[str, dict[str, Any]] = {
    **{kind: {"architecture": {"kind": kind}} for kind in _kinds(ArchitectureConfig)},
    **{kind: {"trunk": {"kind": kind, **trunk}} for kind, trunk in TRUNKS.items()},
    **{
        f"gate {kind}": {"architecture": {"kind": "mmoe", "gate": {"kind": kind, **_GATES.get(kind, {})}}}
        for kind in _kinds(GateConfig)
        if kind != "fallback"
    },
    "gate fallback": {"architecture": {"kind": "cgc", "gate": {"kind": "fallback"}}},
    **{f"history {kind}": {"features": {"history": history(kind)}} for kind in _kinds(HistoryEncoderConfig)},
    "merged weights": {"architecture": {"kind": "mmoe", "mixes": "weights"}},
    "ids alone": {"lists": False},
}
"""Arguments of ``make_model`` by name."""

NOT_RECORDED = {"star", "m3oe", "rank_mixer", "attention_heads"}
"""Models that the host has to count rows for."""
