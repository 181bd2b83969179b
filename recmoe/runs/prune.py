"""prune_experts(): a bundle without the experts that its gates use least, and what that costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from recmoe.config import config_from_dict, dump_config
from recmoe.data.loader import BatchLoader, Split
from recmoe.embeddings.tables import PlainTables
from recmoe.errors import TrainingError
from recmoe.evaluation.evaluate import evaluate
from recmoe.evaluation.predict import predict_rows
from recmoe.evaluation.report import Report
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle, write_bundle
from recmoe.export.lineage import Lineage
from recmoe.export.replay import Replay
from recmoe.growth.merge import merged
from recmoe.growth.prune import Cut, counts_of, cuts_of, pruned_into
from recmoe.model import build_model
from recmoe.runs.cost import Cost, cost_of


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
    config = config_from_dict(ExperimentConfig, bundle.config, source=f"config of {bundle.name}")
    split: Split = "validation" if config.data.validation else "train"
    streams = {
        name: config.data.build(name, seed=config.seed, cache_dir=cache_dir)
        for name in (split, "test")
        if getattr(config.data, name)
    }

    def loader(name: Split) -> BatchLoader:
        return BatchLoader(streams[name], bundle.encoder, batch_size=config.training.evaluation_batch_size)

    usages = predict_rows(bundle.model, loader(split)).usages
    cuts = cuts_of(bundle.model, usages, keep=keep)
    if not any(cut.dropped for cut in cuts.values()):
        raise TrainingError(f"no task of {bundle.name} has more than {keep} experts, nor do all share more; keep fewer")
    config = _with_fewer(config, cuts)
    together = merged(bundle.model, usages, cuts) if merge else None
    model = build_model(layout=bundle.encoder.layout, tasks=bundle.tasks, config=config.model, tables=PlainTables)
    pruned_into(model, bundle.model, cuts, state=None if together is None else together.state)
    model.eval().requires_grad_(False)
    report: Report | None = None
    if "test" in streams:
        scored = predict_rows(model, loader("test"), slices=config.evaluation.slices)
        report = evaluate(scored.predictions, config=config.evaluation)
    with torch.inference_mode():
        rows = bundle.replay.rows
        predictions_NT = model.predict(bundle.encoder.encode(rows, with_labels=False)).numpy()
    made = write_bundle(
        target,
        name=bundle.name,
        config=dump_config(config),
        encoder=bundle.encoder,
        model=model,
        replay=Replay.capture(
            rows, encoder=bundle.encoder, task_names=bundle.tasks.names, predictions_NT=predictions_NT
        ),
        report=report,
        lineage=lineage,
    )
    cost = cost_of(bundle, made, lineage=lineage, stream=streams.get("test"), config=config)
    return Pruned(made, cuts, {} if together is None else together.joined, split, cost)


def _with_fewer(config: ExperimentConfig, cuts: Mapping[str, Cut]) -> ExperimentConfig:
    architecture = config.model.architecture.keeping(counts_of(cuts))
    if architecture is None:
        raise TrainingError(
            f"a model of kind {config.model.architecture.kind} does not say how it looks with fewer experts, and "
            "cannot be pruned"
        )
    model = config.model.model_copy(update={"architecture": architecture})
    return config.model_copy(update={"model": model})
