"""EarlierModel: a finished model to go on from, as a checkpoint or as a bundle."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from recmoe.embeddings.pieces import Piece
from recmoe.embeddings.tables import PlainTables
from recmoe.experiment import ExperimentConfig, experiment_from_json
from recmoe.export.bundle_pieces import BundlePieces
from recmoe.export.manifest import Manifest
from recmoe.features.encoder import FeatureEncoder
from recmoe.growth.dense_names import RANKER, NamedTensor, name_dense
from recmoe.model import build_model
from recmoe.training.checkpoint_folder import verify
from recmoe.training.checkpoint_pieces import CheckpointPieces


class StoredWeights(Protocol):
    """Weights on disk, and the state of the optimizers where it was kept."""

    dense_shapes: Mapping[str, Sequence[int]]
    """Of the dense weights, by their names in the training model."""
    table_optimizer: str | None
    """Kind of the tables' optimizer; None where there are weights only."""

    def dense(self, name: str) -> Tensor: ...

    def dense_slots(self, name: str) -> dict[str, Tensor]:
        """State of the dense optimizer for one weight, by slot."""
        ...

    def table(self, name: str, slot: str | None = None) -> Iterator[Piece]:
        """A table's weights, or a slot of its optimizer; nothing where it was not stored."""
        ...


class StoredCheckpoint:
    """Weights and optimizers of a checkpoint."""

    def __init__(self, directory: Path) -> None:
        self._pieces = CheckpointPieces(directory)
        self.table_optimizer: str | None = self._pieces.about["table_optimizer"]
        shapes = self._pieces.shapes
        self.dense_shapes = {n.removeprefix("dense/"): shapes[n] for n in shapes if n.startswith("dense/")}

    def dense(self, name: str) -> Tensor:
        return self._pieces.whole(f"dense/{name}")

    def dense_slots(self, name: str) -> dict[str, Tensor]:
        prefix = f"dense_optimizer/{name}/"
        slots = (n.removeprefix(prefix) for n in self._pieces.shapes if n.startswith(prefix))
        return {slot: self._pieces.whole(prefix + slot) for slot in slots}

    def table(self, name: str, slot: str | None = None) -> Iterator[Piece]:
        stored = f"tables/{name}" if slot is None else f"table_optimizer/{name}/{slot}"
        if stored in self._pieces.shapes:
            yield from self._pieces.pieces(stored)


class StoredBundle:
    """Weights of a bundle; what training needs beside them did not travel with it."""

    def __init__(self, directory: Path) -> None:
        self._pieces = BundlePieces(directory)
        self.table_optimizer: str | None = None
        self.dense_shapes = {RANKER + name: tensor.shape for name, tensor in self._pieces.dense.items()}

    def dense(self, name: str) -> Tensor:
        return self._pieces.dense[name.removeprefix(RANKER)]

    def dense_slots(self, name: str) -> dict[str, Tensor]:  # noqa: ARG002
        return {}

    def table(self, name: str, slot: str | None = None) -> Iterator[Piece]:
        if slot is None:
            yield from self._pieces.pieces(name)


@dataclass(frozen=True)
class EarlierModel:
    """What a new run may go on from."""

    source: str
    """What it was asked for by."""
    config: ExperimentConfig
    encoder: FeatureEncoder
    weights: StoredWeights

    def named_dense(self) -> dict[str, NamedTensor]:
        """What its dense weights stand for, by their names in its training model."""
        with torch.device("meta"):
            ranker = build_model(
                layout=self.encoder.layout,
                tasks=self.config.task_set(),
                config=self.config.model,
                tables=PlainTables(self.encoder.layout),
            )
        return name_dense(
            self.weights.dense_shapes,
            ranker=ranker,
            architecture=self.config.model.architecture,
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

    def open(self) -> EarlierModel:
        """Read what is small; every process of a job does, so the files' hashes are ``verify``'s to compare.

        Raises:
            CheckpointError, BundleError, DataError, ConfigError: it cannot be read, or is of another version.
        """
        path = self.root / "config.json"
        weights: StoredWeights = (
            StoredBundle(self.root) if self.checkpoint is None else StoredCheckpoint(self.checkpoint)
        )
        return EarlierModel(
            source=self.source,
            config=experiment_from_json(path.read_text(), source=str(path)),
            encoder=FeatureEncoder.load(self.root / "encoder"),
            weights=weights,
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
        return {"source": self.source, "root": str(self.root), "checkpoint": checkpoint}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "WarmStart":
        """The inverse of ``to_json``."""
        checkpoint = values["checkpoint"]
        return cls(values["source"], Path(values["root"]), None if checkpoint is None else Path(checkpoint))
