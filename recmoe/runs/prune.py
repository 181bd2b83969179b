"""prune_experts(): a bundle without the experts that its gates use least, and what that costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recmoe.architectures import ArchitectureConfig
from recmoe.data.loader import Split
from recmoe.errors import TrainingError
from recmoe.evaluation.predict import predict_rows
from recmoe.export.bundle import ModelBundle, check_free
from recmoe.export.lineage import Lineage
from recmoe.growth.merge import merged
from recmoe.growth.prune import Cut, counts_of, cuts_of, pruned_into
from recmoe.runs.cost import Cost
from recmoe.runs.derived import Derivation


@dataclass(frozen=True)
class Pruned:
    """A pruned model."""

    bundle: ModelBundle
    cuts: Mapping[str, Cut]
    """By path of a layer."""
    joined: Mapping[str, Mapping[str, str]]
    """By path of a layer: by expert that went, the one that it was merged into; empty where none was."""
    split: Split
    """The rows that the use of the experts was counted on."""
    cost: Cost


def prune_experts(
    bundle: ModelBundle, target: Path, *, keep: int, lineage: Lineage, cache_dir: Path, merge: bool = False
) -> Pruned:
    """Write a bundle of which every owner has at most ``keep`` experts per layer, and measure it next to the old one.

    Use is counted on the validation split, on the training split where there is none: the test split, which the cost is
    measured on, decides nothing.

    Args:
        bundle: has passed its replay.
        target: folder to make.
        cache_dir: where CSV files are converted.
        merge: those that go become part of those that stay, which become means by use; see ``merged``.

    Raises:
        TrainingError: the model has no experts to choose from, or fewer than would stay.
        DataError, SchemaError: the splits of its config cannot be read.
        BundleError: the folder is there, or cannot be written.
    """
    check_free(target)
    derivation = Derivation.of(bundle, cache_dir=cache_dir)
    split = derivation.judging_split
    usages = predict_rows(bundle.model, derivation.loader(split)).usages
    cuts = cuts_of(bundle.model, usages, keep=keep)
    if not any(cut.dropped for cut in cuts.values()):
        raise TrainingError(f"no task of {bundle.name} has more than {keep} experts, nor do all share more; keep fewer")
    config, model = derivation.with_architecture(_with_fewer(derivation.config.model.architecture, cuts))
    together = merged(bundle.model, usages, cuts) if merge else None
    pruned_into(model, bundle.model, cuts, state=None if together is None else together.state)
    made, cost = derivation.write(target, config=config, model=model, lineage=lineage)
    return Pruned(made, cuts, {} if together is None else together.joined, split, cost)


def _with_fewer(architecture: ArchitectureConfig, cuts: Mapping[str, Cut]) -> ArchitectureConfig:
    fewer = architecture.keeping(counts_of(cuts))
    if fewer is None:
        raise TrainingError(
            f"a model of kind {architecture.kind} does not say how it looks with fewer experts, and cannot be pruned"
        )
    return fewer
