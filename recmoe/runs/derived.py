"""Derivation: a bundle that is made from another one without training, and what the new one costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from recmoe.architectures import ArchitectureConfig
from recmoe.config import config_from_dict, dump_config
from recmoe.data.loader import BatchLoader, Split
from recmoe.data.parquet import ParquetStream
from recmoe.embeddings.logical import find_tables
from recmoe.embeddings.tables import PlainTables
from recmoe.errors import TrainingError
from recmoe.evaluation.evaluate import evaluate
from recmoe.evaluation.predict import predict_rows
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle, write_bundle
from recmoe.export.lineage import Lineage
from recmoe.export.replay import Replay
from recmoe.features.encoder import FeatureEncoder
from recmoe.model import MultiTaskRanker, build_model
from recmoe.runs.cost import Cost, cost_of


@dataclass(frozen=True)
class Derivation:
    """A model to derive another one from, with the rows of its config."""

    bundle: ModelBundle
    config: ExperimentConfig
    encoder: FeatureEncoder
    """That of the bundle, with the label columns of the config."""
    cache_dir: Path

    @classmethod
    def of(cls, bundle: ModelBundle, *, cache_dir: Path, overrides: Sequence[str] = ()) -> Self:
        """From a bundle that has passed its replay.

        Args:
            cache_dir: where CSV files are converted.
            overrides: ``key.path=value`` for its config.

        Raises:
            TrainingError: the bundle's tables are quantized.
            ConfigError: an override that does not fit.
        """
        if any(weight.dtype != torch.float32 for weight in find_tables(bundle.model)[1].table_weights().values()):
            made = "" if bundle.lineage is None else f", such as the one it was made from, {bundle.lineage.source}"
            raise TrainingError(
                f"the tables of {bundle.name} are quantized, and what is made of it would not know its rows; "
                f"choose a model whose tables are float32{made}"
            )
        source = f"config of {bundle.name}"
        config = config_from_dict(ExperimentConfig, bundle.config, overrides=overrides, source=source)
        encoder = FeatureEncoder(bundle.encoder.schema, config.label_columns(), bundle.encoder.state)
        return cls(bundle, config, encoder, cache_dir)

    @property
    def judging_split(self) -> Split:
        """Rows that choices are made on: those of the test split, which the cost is measured on, decide nothing."""
        return "validation" if self.config.data.validation else "train"

    def stream(self, split: Split) -> ParquetStream:
        """The rows of a split."""
        return self.config.data.build(split, seed=self.config.seed, cache_dir=self.cache_dir)

    def few_rows(self, paths: Sequence[str]) -> ParquetStream:
        """Rows of other files, which are written as those of the config are."""
        data = self.config.data.model_copy(update={"test": tuple(paths)})
        return data.build("test", seed=self.config.seed, cache_dir=self.cache_dir)

    def loader(self, split: Split) -> BatchLoader:
        """The same, encoded as the model reads them."""
        batch_size = self.config.training.evaluation_batch_size
        return BatchLoader(self.stream(split), self.encoder, batch_size=batch_size)

    def with_architecture(self, architecture: ArchitectureConfig) -> tuple[ExperimentConfig, MultiTaskRanker]:
        """The config with another architecture, and its model, whose weights are still to be filled in."""
        model = self.config.model.model_copy(update={"architecture": architecture})
        ranker = build_model(
            layout=self.bundle.encoder.layout, tasks=self.bundle.tasks, config=model, tables=PlainTables
        )
        return self.config.model_copy(update={"model": model}), ranker.eval().requires_grad_(False)

    def write(
        self, target: Path, *, config: ExperimentConfig, model: MultiTaskRanker, lineage: Lineage
    ) -> tuple[ModelBundle, Cost]:
        """Write the new model with its own report and replay, and measure it next to the old one.

        Raises:
            BundleError: the folder is there, or cannot be written.
            DataError, SchemaError: the test split cannot be read.
        """
        bundle = self.bundle
        report = None
        if config.data.test:
            scored = predict_rows(model, self.loader("test"), slices=config.evaluation.slices)
            report = evaluate(scored.predictions, config=config.evaluation)
        made = write_bundle(
            target,
            name=bundle.name,
            config=dump_config(config),
            encoder=self.encoder,
            model=model,
            replay=self._replay(model),
            report=report,
            lineage=lineage,
        )
        stream = self.stream("test") if config.data.test else None
        return made, cost_of(bundle, made, lineage=lineage, stream=stream, config=config)

    def _replay(self, model: MultiTaskRanker) -> Replay:
        """The rows of the old model's, with what the new one predicts of them."""
        encoder, rows = self.encoder, self.bundle.replay.rows
        with torch.inference_mode():
            predictions_NT = model.predict(encoder.encode(rows, with_labels=False)).numpy()
        return Replay.capture(rows, encoder=encoder, task_names=model.tasks.names, predictions_NT=predictions_NT)
