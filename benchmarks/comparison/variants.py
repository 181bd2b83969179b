"""What is compared: every kind of architecture, MMoE by every kind of gate and expert, some named ones; and its trials.

Kinds come from the unions: a new one is compared as soon as it is listed there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from recmoe.architectures import ArchitectureConfig
from recmoe.config import config_from_dict, dump_config
from recmoe.errors import ConfigError
from recmoe.evaluation.skill import SCORE
from recmoe.experiment import ExperimentConfig
from recmoe.moe.experts import ExpertConfig
from recmoe.moe.gates import GateConfig
from recmoe.moe.gates.in_training import InTrainingConfig
from recmoe.moe.mixture import MixtureConfig

REFERENCES = ("shared_bottom", "single_task")
"""Variants that all others are set beside."""


@dataclass(frozen=True)
class Variant:
    """A model to compare, in the sizes of the log that it is trained on."""

    name: str
    kind: str
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """Fields that are not the kind's defaults."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """Of the section ``model`` around it."""
    widening: int = 1
    """Factor of the width of layers."""


def kinds_of(union: Any) -> dict[str, Any]:
    """The config classes of a union by their kind."""
    return {config.model_fields["kind"].default: config for config in get_args(get_args(union)[0])}


ARCHITECTURES = kinds_of(ArchitectureConfig)
GATES, EXPERTS = list(kinds_of(GateConfig)), list(kinds_of(ExpertConfig))
OF_GATE = {"null_experts": {"balance": {"even": {"kind": "null_experts", "weight": 0.01}}}}
"""What a gate cannot do without, of the section ``model``: nothing else moves the logits of null experts."""
NAMED = (
    Variant("shared_bottom:wide", "shared_bottom", widening=4),
    Variant("mmoe:16", "mmoe", {"num_experts": 16}),
    Variant("mmoe:16-top_k", "mmoe", {"num_experts": 16, "gate": {"kind": "top_k"}}, {"balance": 0.01}),
    Variant(
        "mmoe:16-unchosen", "mmoe", {"num_experts": 16, "gate": {"kind": "top_k"}, "unchosen": {}}, {"balance": 0.01}
    ),
    Variant("mmoe:mixed", "mmoe", {"expert": [{"kind": "mlp"}, {"kind": "cross"}, {"kind": "identity"}]}),
    Variant("mmoe:merged", "mmoe", {"mixes": "weights"}),
    Variant("mmoe:16-switch", "mmoe", {"num_experts": 16, "gate": {"kind": "switch"}}, {"balance": 0.01}),
    Variant("mmoe:expert_dropout", "mmoe", {"expert_dropout": 0.2}),
    Variant("ple:3-levels", "ple", {"num_levels": 3}),
    Variant("ple:top_k", "ple", {"gate": {"kind": "top_k"}}, {"balance": 0.01}),
    Variant("mmoe:trunk=rank_mixer", "mmoe", {}, {"trunk": {"kind": "rank_mixer"}}),
    Variant("mmoe:trunk=attention_heads", "mmoe", {}, {"trunk": {"kind": "attention_heads"}}),
)
VARIANTS = {
    one.name: one
    for one in (
        *(Variant(kind, kind) for kind in ARCHITECTURES),
        *NAMED,
        *(
            Variant(f"mmoe:gate={kind}", "mmoe", {"gate": {"kind": kind}}, OF_GATE.get(kind, {}))
            for kind in GATES
            if kind != "softmax"
        ),
        *(
            Variant(f"mmoe:in_training={kind}", "mmoe", {"gate": {"kind": "switch", "in_training": {"kind": kind}}})
            for kind in kinds_of(InTrainingConfig)
            if kind != "first_come"
        ),
        *(Variant(f"mmoe:expert={kind}", "mmoe", {"expert": {"kind": kind}}) for kind in EXPERTS if kind != "mlp"),
    )
}
"""By name; softmax and mlp are what ``mmoe`` itself has, and first_come is what ``switch`` has."""

FUNNELS = ("synthetic", "hillstrom")
ONLY_ON = {"aitm": FUNNELS, "escm2": FUNNELS, "resflow": FUNNELS}
"""Kinds that are made for steps which follow each other, and the logs that have such."""
DOMAINS = {"synthetic": "device", "census": "sex", "hillstrom": "channel", "trivago": "device"}
"""An id feature with few values, by log."""
STABLE = {
    "synthetic": (["item_id", "user_id"], 100),
    "census": (["major_occupation", "education"], 300),
    "hillstrom": (["channel", "zip_code"], 100),
    "trivago": (["item_id", "city"], 100),
}
"""By log: id features that say much of a row, and about a tenth of the steps that the log's own model is trained."""
ON_LOG: dict[tuple[str, str], dict[str, Any]] = {
    # The step after the click as a task of its own, over the same rows as the click.
    **{
        (kind, "synthetic"): {
            "model.architecture.chain": ["ctr", "ctcvr"],
            "tasks.ctcvr": {"kind": "binary", "label": "purchase"},
        }
        for kind in ("aitm", "resflow")
    },
    **{
        (kind, "hillstrom"): {
            "model.architecture.chain": ["visit", "visit_and_conversion"],
            "tasks.visit_and_conversion": {"kind": "binary", "label": "conversion"},
        }
        for kind in ("aitm", "resflow")
    },
    ("pepnet", "synthetic"): {
        "model.architecture.domain": "place",
        "model.architecture.personal": "person",
        "model.groups": {"place": ["device", "hour"], "person": ["user_id", "plan", "item_id"]},
    },
    ("pepnet", "trivago"): {
        "model.architecture.domain": "place",
        "model.architecture.personal": "person",
        "model.groups": {"place": ["platform", "device"], "person": ["last_item", "city", "item_id"]},
    },
    **{
        (kind, log): {"model.architecture.domain": domain}
        for kind in ("star", "m3oe")
        for log, domain in DOMAINS.items()
    },
    **{("mmoe:gate=hash", log): {"model.architecture.gate.feature": domain} for log, domain in DOMAINS.items()},
    **{
        ("mmoe:gate=stable", log): {
            "model.architecture.gate.feature": features,
            "model.architecture.gate.stage_1_steps": stage_1_steps,
            "model.balance": {"even": {"kind": "stable"}},
        }
        for log, (features, stage_1_steps) in STABLE.items()
    },
}
"""What a kind, or a variant by its name, needs on a log, by key path."""

TRIALS = (
    (1.0, 1.0, 0.0), (0.3, 1.0, 0.2), (1.0, 3.0, 0.2), (0.3, 3.0, 0.0),
    (3.0, 1.0, 0.0), (1.0, 0.3, 0.0), (3.0, 0.3, 0.2), (3.0, 3.0, 0.2),
)  # fmt: skip
"""Factors of the log's learning rates, of tables and of all else, and what is added to its dropout. The first is the
log's own setting; the first four vary every one of the three, each as often up as down."""


def trial_config(
    log: str, base: ExperimentConfig, variant: Variant, trial: int, *, seed: int, overrides: Sequence[str] = ()
) -> ExperimentConfig:
    """The config of a training.

    Layers are as wide as those of the log's own model, in proportion where the kind's defaults are others, and the
    number of experts is that of the kind's defaults. All
    stop, and keep the weights, by the skill over all tasks.

    Args:
        log: the log's name.
        base: the log's config, whose model is a mixture.
        trial: which of ``TRIALS``.
        overrides: ``key.path=value``, last of all.

    Raises:
        ConfigError: the variant does not fit the log, with what would be needed.
    """
    if log not in ONLY_ON.get(variant.kind, (log,)):
        raise ConfigError(f"made for steps that follow each other, as in {' and '.join(ONLY_ON[variant.kind])}")
    tables, dense, dropout = TRIALS[trial]
    own = base.model.architecture
    assert isinstance(own, MixtureConfig), "the logs' own configs are mixtures"
    architecture = {"kind": variant.kind, **_sizes(variant, own, dropout=own.dropout + dropout), **variant.architecture}
    values = dump_config(base)
    del values["model"]["architecture"]
    changes = {
        "seed": seed,
        "tracking": {"kind": "none"},
        "evaluation.baselines": [],
        "model.architecture": architecture,
        **{f"model.{name}": value for name, value in variant.model.items()},
        "tables.optimizer.lr": tables * base.tables.optimizer.lr,
        "training.dense_optimizer.lr": dense * base.training.dense_optimizer.lr,
        "training.early_stopping.metric": SCORE,
        **ON_LOG.get((variant.kind, log), {}),
        **ON_LOG.get((variant.name, log), {}),
    }
    changed = dump_config(config_from_dict(ExperimentConfig, values, changes=changes, changes_from=variant.name))
    return config_from_dict(ExperimentConfig, changed, overrides=overrides, source=variant.name)


def _sizes(variant: Variant, own: MixtureConfig, *, dropout: float) -> dict[str, Any]:
    """Fields of the variant's kind: dropout, and layers that are to its defaults what the log's are to a mixture's."""
    fields = ARCHITECTURES[variant.kind].model_fields
    usual = MixtureConfig.model_fields["expert_hidden"].default
    sizes: dict[str, Any] = {"dropout": dropout} if "dropout" in fields else {}
    for name in ("hidden", "expert_hidden"):
        if name in fields:
            # A kind of small experts has small ones here, too.
            factors = [default / width for default, width in zip(fields[name].default, usual, strict=False)]
            sizes[name] = [
                max(1, round(variant.widening * factor * width))
                for factor, width in zip(factors, own.expert_hidden, strict=False)
            ]
    return sizes


def trial_name(trial: int) -> str:
    """A trial in words, such as ``tables × 0.3, dropout + 0.2``."""
    tables, dense, dropout = TRIALS[trial]
    parts = [f"tables × {tables:g}"] * (tables != 1) + [f"rest × {dense:g}"] * (dense != 1)
    return ", ".join([*parts, *[f"dropout + {dropout:g}"] * (dropout > 0)]) or "as the log's config"
