"""evaluate_bundle(): a trained model over any split or files, with the metrics its config asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from recmoe.config import config_from_dict
from recmoe.data.loader import BatchLoader, DataConfig, Split
from recmoe.data.parquet import ParquetStream
from recmoe.evaluation.baselines import Baselines
from recmoe.evaluation.by_group import group_routing
from recmoe.evaluation.compare import compare
from recmoe.evaluation.evaluate import evaluate
from recmoe.evaluation.expert_curves import expert_curves
from recmoe.evaluation.page import write_report_page
from recmoe.evaluation.predict import Scored, predict_rows
from recmoe.evaluation.report import Report
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.runs.about import about_config
from recmoe.runs.baselines import learn_baselines


@dataclass(frozen=True)
class Evaluation:
    """A report, and what it was made from."""

    name: str
    """Model and rows, for titles."""
    report: Report
    scored: Scored
    about: Mapping[str, str]
    """Where the numbers come from, for the page."""

    def write(self, folder: Path) -> tuple[Path, Path]:
        """``report.json`` and ``report.html`` in a folder, made if it is missing; their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        values, page = folder / "report.json", folder / "report.html"
        values.write_text(self.report.to_json(), encoding="utf-8")
        write_report_page(
            self.report, self.scored.predictions, self.scored.levels, page, title=self.name, about=self.about
        )
        return values, page


def evaluate_bundle(
    bundle: ModelBundle,
    *,
    split: Literal["train", "validation", "test"] = "test",
    paths: Sequence[str] = (),
    overrides: Sequence[str] = (),
    data: DataConfig | None = None,
    cache_dir: Path,
    with_baselines: bool = False,
) -> Evaluation:
    """Score rows with a bundle's model and measure every task.

    Args:
        split: of the config that the bundle was trained with.
        paths: files, folders or globs to use in place of that split.
        overrides: ``key.path=value`` for the config, such as ``evaluation.slices=[device]``.
        data: splits, and how they are read, in place of those of the bundle's config.
        cache_dir: where CSV files are converted.
        with_baselines: train the config's baselines on its training split; by default they are those of the
            bundle's report, where that is about the same rows.

    Raises:
        ConfigError: an override that does not fit.
        DataError, SchemaError: the rows cannot be read, or lack a column.
        EvaluationError: a slice or a metric that cannot be computed.
    """
    config = config_from_dict(ExperimentConfig, bundle.config, overrides=overrides, source=f"config of {bundle.name}")
    if data is not None:
        config = config.model_copy(update={"data": data})
    if paths:
        config = config.model_copy(update={"data": config.data.model_copy(update={split: tuple(paths)})})
    stream = config.data.build(split, seed=config.seed, cache_dir=cache_dir)
    settings = config.evaluation
    scored = predict_rows(
        bundle.model,
        _loader(config, stream, bundle),
        slices=settings.slices,
        max_slice_values=settings.max_slice_values,
    )
    report = replace(
        evaluate(scored.predictions, config=settings),
        experts=expert_curves(scored.levels),
        routing=group_routing(scored.shares, scored.predictions, config=settings),
    )
    if with_baselines:
        streams = _streams(config, stream, cache_dir)
        baselines, values_NT, rows_N = learn_baselines(config, streams, bundle.encoder)
        comparisons = compare(scored.predictions.take(rows_N), values_NT, config=config.evaluation)
        report = replace(report, baselines=replace(baselines, comparisons=comparisons))
    elif split == "test" and not paths and not any(one.startswith("data.") for one in overrides):
        report = replace(report, baselines=_earlier_baselines(bundle, report, config))
    about = {**about_config(config), "test files": ", ".join(paths) or f"{split} split", "bundle": bundle.digest[:12]}
    return Evaluation(f"{bundle.name}: {', '.join(paths) or f'{split} split'}", report, scored, about)


def _earlier_baselines(bundle: ModelBundle, report: Report, config: ExperimentConfig) -> Baselines | None:
    """Those of the bundle's report, if it is about as many rows and the config still wants some."""
    is_about_the_same = bundle.report is not None and bundle.report.num_rows == report.num_rows
    return bundle.report.baselines if bundle.report and is_about_the_same and config.evaluation.baselines else None


def _streams(config: ExperimentConfig, measured: ParquetStream, cache_dir: Path) -> dict[Split, ParquetStream]:
    """The splits that baselines learn from, and as the test split the rows that are measured."""
    streams: dict[Split, ParquetStream] = {"test": measured}
    for split in ("train", "validation"):
        if getattr(config.data, split):
            streams[split] = config.data.build(split, seed=config.seed, cache_dir=cache_dir)
    return streams


def _loader(config: ExperimentConfig, stream: ParquetStream, bundle: ModelBundle) -> BatchLoader:
    return BatchLoader(stream, bundle.encoder, batch_size=config.training.evaluation_batch_size)
