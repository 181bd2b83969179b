"""EarlierModel: a finished model to go on from, as a checkpoint or as a bundle."""

# N rows of a file, D floats per row

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from recmoe.embeddings.tables import PlainTables
from recmoe.experiment import ExperimentConfig, experiment_from_json
from recmoe.export.bundle_weights import BundleWeights
from recmoe.export.manifest import Manifest
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import InputLayout
from recmoe.growth.dense_names import RANKER, NamedTensor, name_dense
from recmoe.model import build_model, model_layout
from recmoe.training.checkpoint_folder import read_manifest, verify
from recmoe.training.pieces import Box, Piece
from recmoe.training.snapshot import TENSORS
from recmoe.training.stored_tensors import StoredTensors


class StoredWeights(Protocol):
    """Weights on disk, and the state of the optimizers where it was kept."""

    @property
    def dense_shapes(self) -> Mapping[str, Sequence[int]]:
        """Of the dense weights, by their names in the training model."""
        ...

    @property
    def table_optimizer(self) -> str | None:
        """Kind of the tables' optimizer; None where there are weights only."""
        ...

    def dense(self, name: str) -> Tensor: ...

    def dense_slots(self, name: str) -> dict[str, Tensor]:
        """State of the dense optimizer for one weight, by slot."""
        ...

    def table(self, name: str, slot: str | None = None) -> Sequence[Box]:
        """A table's weights, or a slot of its optimizer, in boxes of whole rows; nothing where it was not stored."""
        ...

    def close(self) -> None:
        """Close what has been opened."""
        ...


class StoredCheckpoint:
    """Weights and optimizers of a checkpoint, whatever processes and shards it was saved by.

    Args:
        directory: of the checkpoint; its manifest is read, its files are not verified.

    Raises:
        CheckpointError: it is missing, not committed, or of another format.
    """

    def __init__(self, directory: Path) -> None:
        self.table_optimizer: str | None = read_manifest(directory)["about"]["table_optimizer"]
        self._stored = StoredTensors(directory / TENSORS)
        shapes = {name: tensor.shape for name, tensor in self._stored.tensors.items()}
        self.dense_shapes = {n.removeprefix("dense/"): shapes[n] for n in shapes if n.startswith("dense/")}

    def dense(self, name: str) -> Tensor:
        return self._whole(f"dense/{name}")

    def dense_slots(self, name: str) -> dict[str, Tensor]:
        prefix = f"dense_optimizer/{name}/"
        slots = (stored.removeprefix(prefix) for stored in self._stored.tensors if stored.startswith(prefix))
        return {slot: self._whole(prefix + slot) for slot in slots}

    def table(self, name: str, slot: str | None = None) -> Sequence[Box]:
        stored = f"tables/{name}" if slot is None else f"table_optimizer/{name}/{slot}"
        return [self._stored.box(stored)] if stored in self._stored.tensors else []

    def close(self) -> None:
        self._stored.close()

    def _whole(self, name: str) -> Tensor:
        tensor = self._stored.tensors[name]
        values = torch.empty(tensor.shape, dtype=tensor.dtype)
        self._stored.read_into(values, name, (0,) * values.ndim)
        return values


class StoredBundle:
    """Weights of a bundle; what training needs beside them did not travel with it."""

    def __init__(self, directory: Path) -> None:
        self._weights = BundleWeights(directory)
        self.table_optimizer: str | None = None
        self.dense_shapes = {RANKER + name: tensor.shape for name, tensor in self._weights.dense.items()}

    def dense(self, name: str) -> Tensor:
        return self._weights.dense[name.removeprefix(RANKER)]

    def dense_slots(self, name: str) -> dict[str, Tensor]:  # noqa: ARG002
        return {}

    def table(self, name: str, slot: str | None = None) -> Sequence[Box]:
        if slot is not None:
            return []
        files = list(self._weights.files(name))
        whole = (sum(len(rows_ND) for rows_ND in files), files[0].shape[1])
        starts = accumulate((len(rows_ND) for rows_ND in files), initial=0)
        return [Piece(name, whole, (start, 0), rows_ND) for start, rows_ND in zip(starts, files, strict=False)]

    def close(self) -> None:
        """Nothing stays open: files are mapped."""


@dataclass(frozen=True)
class EarlierModel:
    """What a new run may go on from."""

    source: str
    """What it was asked for by."""
    config: ExperimentConfig
    encoder: FeatureEncoder
    weights: StoredWeights

    def close(self) -> None:
        """Close the files of its weights."""
        self.weights.close()

    @property
    def layout(self) -> InputLayout:
        """Of its tables."""
        return model_layout(self.encoder.layout, tasks=self.config.task_set(), config=self.config.model)

    def named_dense(self) -> dict[str, NamedTensor]:
        """What its dense weights stand for, by their names in its training model."""
        with torch.device("meta"):
            ranker = build_model(
                layout=self.encoder.layout,
                tasks=self.config.task_set(),
                config=self.config.model,
                tables=PlainTables,
            )
        return name_dense(
            self.weights.dense_shapes,
            ranker=ranker,
            config=self.config.model,
            encoder=self.encoder,
        )


@dataclass(frozen=True)
class WarmStart:
    """Where an earlier model lies: all that the processes of a job need to open it."""

    source: str
    """What it was asked for by: models:/NAME@ALIAS, a run or a bundle."""
    root: Path
    """The run or the bundle, with ``config.json`` and ``encoder/``."""
    checkpoint: Path | None
    """Of the run; None where the weights are those of the bundle."""
    noise: float | None = None
    """Where a mixture is made of a dense model: what tells its experts apart, as a share of the spread of the weights;
    None where the model goes on as it is."""

    def open(self) -> EarlierModel:
        """Read what is small; every process of a job does, so the files' hashes are ``verify``'s to compare.

        Raises:
            CheckpointError, BundleError, DataError, ConfigError: it cannot be read, or is of another version.
        """
        path = self.root / "config.json"
        return EarlierModel(
            source=self.source,
            config=experiment_from_json(path.read_text(encoding="utf-8"), source=str(path)),
            encoder=FeatureEncoder.load(self.root / "encoder"),
            weights=StoredBundle(self.root) if self.checkpoint is None else StoredCheckpoint(self.checkpoint),
        )

    def verify(self) -> None:
        """Compare every file with its hash.

        Raises:
            CheckpointError, BundleError: one is missing or damaged.
        """
        if self.checkpoint is None:
            Manifest.read(self.root).verify(self.root)
        else:
            verify(self.checkpoint)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the state of a run."""
        checkpoint = None if self.checkpoint is None else str(self.checkpoint)
        values = {"source": self.source, "root": str(self.root), "checkpoint": checkpoint}
        return values if self.noise is None else {**values, "noise": self.noise}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "WarmStart":
        """The inverse of ``to_json``."""
        checkpoint = values["checkpoint"]
        where = None if checkpoint is None else Path(checkpoint)
        return cls(values["source"], Path(values["root"]), where, values.get("noise"))
