"""CheckpointPieces: the tensors of a checkpoint as they were stored, one shard after the other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem

from recmoe.embeddings.pieces import Piece
from recmoe.training.checkpoint_folder import read_manifest


class CheckpointPieces:
    """Reads any tensor of a committed checkpoint, whatever processes and shards it was saved by.

    A piece is what one process held of one tensor: more than that is never in memory.

    Args:
        directory: of the checkpoint; its manifest is read, its files are not verified.

    Raises:
        CheckpointError: it is missing, not committed, or of another format.
    """

    def __init__(self, directory: Path) -> None:
        self.about: dict[str, Any] = read_manifest(directory)["about"]
        self._reader = FileSystemReader(directory / "tensors")
        self._metadata = self._reader.read_metadata()
        self._reader.set_up_storage_reader(self._metadata, is_coordinator=True)
        self.shapes = {
            name: tuple(entry.size)
            for name, entry in self._metadata.state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata)
        }
        """By name, as in ``checkpoint``: tables/<table>, dense/<parameter> …"""

    def pieces(self, name: str) -> Iterator[Piece]:
        """The stored parts of a tensor."""
        entry = self._metadata.state_dict_metadata[name]
        assert isinstance(entry, TensorStorageMetadata)
        for chunk in entry.chunks:
            tensor = torch.empty(chunk.sizes, dtype=entry.properties.dtype)
            index = MetadataIndex(name, chunk.offsets)
            start = torch.Size([0] * len(chunk.sizes))
            item = ReadItem(LoadItemType.TENSOR, index, start, index, start, chunk.sizes)
            # It asks for two methods of a planner, no more.
            self._reader.read_data(LoadPlan([item]), cast(LoadPlanner, _Into(tensor))).wait()
            yield Piece(tensor, tuple(chunk.offsets))

    def whole(self, name: str) -> Tensor:
        """A tensor as it was before it was sharded."""
        pieces = list(self.pieces(name))
        if len(pieces) == 1:
            return pieces[0].tensor
        whole = torch.empty(self.shapes[name], dtype=pieces[0].tensor.dtype)
        for piece in pieces:
            sizes = zip(piece.offsets, piece.tensor.shape, strict=True)
            whole[tuple(slice(offset, offset + size) for offset, size in sizes)] = piece.tensor
        return whole


class _Into:
    """Where the reader puts the one tensor that it is asked for."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:  # noqa: ARG002
        return self._tensor

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        """Nothing is left to do: the tensor is the one that is wanted."""
