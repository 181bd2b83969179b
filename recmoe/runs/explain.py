"""explain_gates(), explain_rows(): what moves gates and predictions of a model, over rows spread through a split."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from recmoe.client.explanation import Explanation
from recmoe.config import config_from_dict
from recmoe.data.parquet import ParquetStream
from recmoe.evaluation.gate_features import GateFeatures, gate_features
from recmoe.evaluation.gate_features_page import write_gate_features_page
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.ranking.ranker import Ranker

Split = Literal["train", "validation", "test"]

RUN_ROWS = 16
"""Neighbouring rows that are taken together, for a file is read in pieces."""


@dataclass(frozen=True)
class GateExplanation:
    """What moves the gates of a model."""

    name: str
    """Model and rows, for titles."""
    gates: list[GateFeatures]

    def write(self, folder: Path) -> tuple[Path, Path]:
        """``gates.json`` and ``gates.html`` in a folder, made if it is missing; their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        values, page = folder / "gates.json", folder / "gates.html"
        values.write_text(json.dumps([one.to_json() for one in self.gates], indent=1), encoding="utf-8")
        write_gate_features_page(self.gates, page, title=f"Gates of {self.name}")
        return values, page


def explain_gates(
    bundle: ModelBundle,
    *,
    split: Split = "test",
    paths: Sequence[str] = (),
    num_rows: int = 256,
    num_steps: int = 32,
    cache_dir: Path,
) -> GateExplanation:
    """Attribute the weights of every gate to the model's features; see ``gate_features``.

    Args:
        split: of the config that the bundle was trained with.
        paths: files, folders or globs to use in place of that split.
        num_rows: rows, spread evenly through the split; all where it has fewer.
        num_steps: of the integral.
        cache_dir: where CSV files are converted.

    Raises:
        StackError: captum is not installed.
        EvaluationError: the model has no gates with a choice, or there is one row.
        DataError, SchemaError: the rows cannot be read, or lack a column.
    """
    rows = _rows_of(bundle, split, paths, num_rows, cache_dir)
    batch = bundle.encoder.encode(rows, with_labels=False)
    gates = gate_features(bundle.model, batch, num_steps=num_steps)
    return GateExplanation(f"{bundle.name}: {', '.join(paths) or f'{split} split'}", gates)


@dataclass(frozen=True)
class ExplainedRows:
    """What made the predictions of some rows of a log, with all features."""

    item_ids: Sequence[Any]
    """None where the model does not know which column names an item."""
    explanations: Sequence[Explanation]

    def mean_sizes(self) -> dict[str, dict[str, float]]:
        """By task and feature, how far it moves a prediction up or down in the mean; the largest first."""
        found: dict[str, dict[str, float]] = {}
        for explanation in self.explanations:
            for name, task in explanation.tasks.items():
                sizes = found.setdefault(name, {})
                for one in task.features:
                    sizes[one.feature] = sizes.get(one.feature, 0.0) + abs(one.value) / len(self.explanations)
        return {name: dict(sorted(sizes.items(), key=lambda pair: -pair[1])) for name, sizes in found.items()}

    def write(self, path: Path) -> None:
        """A line of JSON per row; an existing file is replaced."""
        pairs = zip(self.item_ids, self.explanations, strict=True)
        lines = [json.dumps({"item_id": item_id, **asdict(one)}, default=str) for item_id, one in pairs]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def explain_rows(
    ranker: Ranker, *, split: Split = "test", paths: Sequence[str] = (), num_rows: int = 256, cache_dir: Path
) -> ExplainedRows:
    """Explain the predictions of rows as a server does; the arguments are those of ``explain_gates``.

    Raises:
        DataError, SchemaError: the rows cannot be read, or lack a column.
    """
    rows = _rows_of(ranker.bundle, split, paths, num_rows, cache_dir)
    item = ranker.bundle.encoder.schema.item
    item_ids = [None] * rows.num_rows if item not in rows.column_names else rows.column(item).to_pylist()
    return ExplainedRows(item_ids, ranker.explainer.of_rows(rows))


def _rows_of(bundle: ModelBundle, split: Split, paths: Sequence[str], num_rows: int, cache_dir: Path) -> pa.Table:
    """Rows spread through a split of the config that a bundle was trained with, or through other files."""
    config = config_from_dict(ExperimentConfig, bundle.config, source=f"config of {bundle.name}")
    if paths:
        config = config.model_copy(update={"data": config.data.model_copy(update={split: tuple(paths)})})
    stream = config.data.build(split, seed=config.seed, cache_dir=cache_dir)
    return _spread_rows(stream, num_rows, bundle.encoder.columns(with_labels=False))


def _spread_rows(stream: ParquetStream, num_rows: int, columns: Sequence[str]) -> pa.Table:
    """Short runs of rows at even distances."""
    stream.require(columns)
    num_runs = -(-min(num_rows, stream.num_rows) // RUN_ROWS)
    starts = [index * stream.num_rows // num_runs for index in range(num_runs)]
    ends = [*starts[1:], stream.num_rows]
    intervals = [(start, min(start + RUN_ROWS, end)) for start, end in zip(starts, ends, strict=True)]
    blocks = stream.blocks_in_file_order(intervals, batch_size=num_rows, columns=columns)
    with closing(blocks):
        return next(blocks).table
