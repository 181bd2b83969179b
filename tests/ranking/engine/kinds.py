"""Models whose recorded passes are compared: every architecture, trunk, gate and encoder of histories."""

import typing
from typing import Any

from recmoe.architectures import ArchitectureConfig
from recmoe.embeddings.row_format import BF16, INT8
from recmoe.moe.experts import ExpertConfig
from recmoe.moe.gates import GateConfig
from recmoe.sequence import HistoryEncoderConfig
from tests.parity.test_histories_are_served_as_trained import history
from tests.parity.test_served_scores_equal_training_scores import TRUNKS


def _kinds(union: Any) -> list[str]:
    return [member.model_fields["kind"].default for member in typing.get_args(typing.get_args(union)[0])]


_GATES: dict[str, dict[str, Any]] = {"hash": {"feature": "item_id"}, "stable": {"feature": ["item_id", "user_id"]}}
"""What some gates need."""

_TASKS: dict[str, dict[str, Any]] = {
    "ctr": {"kind": "binary", "label": "click"},
    "price": {"kind": "regression", "label": "price", "transform": "log1p"},
    "cvr": {"kind": "binary", "label": "purchase", "space": "click"},
    "both": {"kind": "product", "of": ["ctr", "cvr"]},
    "class": {"kind": "classes", "label": "click", "classes": {"0": 0, "1": 2}},
    "level": {"kind": "ordinal", "label": "click", "levels": [0, 1]},
    "quantile": {"kind": "quantile", "label": "price", "quantiles": [0.1, 0.5, 0.9], "predicts": 0.5},
    "amount": {"kind": "zero_inflated_lognormal", "label": "price"},
    "order": {"kind": "ranking", "label": "purchase"},
}

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
    **{f"expert {kind}": {"architecture": {"kind": "mmoe", "expert": {"kind": kind}}} for kind in _kinds(ExpertConfig)},
    "experts of a kind each": {
        "architecture": {"kind": "mmoe", "num_experts": 2, "expert": [{"kind": "mlp"}, {"kind": "gated"}]}
    },
    "what was not chosen": {"architecture": {"kind": "mmoe", "gate": {"kind": "top_k"}, "unchosen": {}}},
    "tasks of every kind": {"architecture": {"kind": "ple"}, "tasks": _TASKS},
    "tables in int8": {"architecture": {"kind": "mmoe"}, "rows": INT8},
    "ids alone in bf16": {"architecture": {"kind": "mmoe"}, "rows": BF16, "lists": False},
    "merged weights": {"architecture": {"kind": "mmoe", "mixes": "weights"}},
    "merged weights of some": {"architecture": {"kind": "cgc", "expert_hidden": [16, 8], "mixes": "weights"}},
    "sparse gates of some": {"architecture": {"kind": "ple", "num_shared_experts": 2, "gate": {"kind": "top_k"}}},
    "ids alone": {"lists": False},
}
"""Arguments of ``make_model`` by name."""

NOT_RECORDED = {"star", "m3oe", "rank_mixer", "attention_heads"}
"""Models that the host has to count rows for."""
