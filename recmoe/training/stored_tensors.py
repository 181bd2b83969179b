"""StoredTensors: the logical tensors of a folder, read box by box; ``tensor_files`` describes the files."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from recmoe.errors import CheckpointError
from recmoe.model.stored_names import current_name
from recmoe.training.pieces import num_bytes, row_blocks

INDEX = "index.json"


@dataclass(frozen=True)
class Part:
    """Where a box of a tensor lies in a file."""

    file: str
    offset: int
    """Bytes before it in the file."""
    start: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class StoredTensor:
    """A logical tensor, and the parts that make it."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    parts: tuple[Part, ...]

    @property
    def num_bytes(self) -> int:
        """Of all values."""
        return num_bytes(self.shape, self.dtype)


class StoredTensors:
    """The tensors of a folder. Files stay open until ``close`` or the end of a ``with``.

    Raises:
        CheckpointError: there is no index that can be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, IO[bytes]] = {}
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            self.tensors = {current_name(name): _from_json(values) for name, values in index.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{folder / INDEX} cannot be read: {error}; use an older checkpoint") from error

    def __enter__(self) -> "StoredTensors":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def read_into(self, target: Tensor, name: str, start: Sequence[int]) -> None:
        """Fill a tensor with the box of a stored one that begins at ``start``; only its parts are read.

        Raises:
            CheckpointError: some of the values are not there, or a file ends too early.
        """
        stored = self.tensors[name]
        shape, start = (tuple(target.shape), tuple(start)) if target.ndim else ((1,), (0,))
        target = target.reshape(shape) if not target.ndim else target
        num_found = 0
        for part in stored.parts:
            part_start, part_shape = (part.start, part.shape) if part.shape else ((0,), (1,))
            low = [max(pair) for pair in zip(start, part_start, strict=True)]
            high = [
                min(first + size, other + extent)
                for first, size, other, extent in zip(start, shape, part_start, part_shape, strict=True)
            ]
            if any(first >= last for first, last in zip(low, high, strict=True)):
                continue
            num_found += torch.Size([last - first for first, last in zip(low, high, strict=True)]).numel()
            here = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
            there = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, part_start, strict=True))
            destination = target[here]
            for first, last in row_blocks((high[0] - low[0], *part_shape[1:]), stored.dtype.itemsize):
                rows = self._rows(part, part_shape, stored.dtype, there[0].start + first, there[0].start + last)
                destination[first:last].copy_(rows[(slice(None), *there[1:])])
        if num_found != target.numel():
            raise CheckpointError(
                f"{self._folder}: {name} has {num_found:,} of {target.numel():,} values asked for; "
                "use an older checkpoint"
            )

    def box(self, name: str) -> "StoredBox":
        """The whole of a stored tensor, as something to write again."""
        shape = self.tensors[name].shape
        return StoredBox(self, name, (0,) * len(shape), shape)

    def _rows(self, part: Part, shape: tuple[int, ...], dtype: torch.dtype, first: int, last: int) -> Tensor:
        """Rows first … last - 1 of a part."""
        values = torch.empty((last - first, *shape[1:]), dtype=dtype)
        file = self._files.get(part.file)
        if file is None:
            file = self._files[part.file] = (self._folder / part.file).open("rb", buffering=0)
        file.seek(part.offset + first * num_bytes(shape[1:], dtype))
        buffer = memoryview(bytes_of(values))
        while len(buffer):
            # One read may give less than is asked for.
            num_read = file.readinto(buffer)  # type: ignore[attr-defined]
            if not num_read:
                raise CheckpointError(f"{self._folder / part.file} ends too early; use an older checkpoint")
            buffer = buffer[num_read:]
        return values


@dataclass(frozen=True)
class StoredBox:
    """A box of a stored tensor, read block by block."""

    stored: StoredTensors
    name: str
    start: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def whole(self) -> tuple[int, ...]:
        """Shape of the logical tensor."""
        return self.stored.tensors[self.name].shape

    @property
    def dtype(self) -> torch.dtype:
        """Of the values."""
        return self.stored.tensors[self.name].dtype

    def rows(self, first: int, last: int) -> "StoredBox":
        """Rows first … last - 1 of the box."""
        start = (self.start[0] + first, *self.start[1:])
        return replace(self, start=start, shape=(last - first, *self.shape[1:]))

    def blocks(self) -> Iterator[Tensor]:
        """The values, some consecutive rows at a time."""
        for first, last in row_blocks(self.shape, self.dtype.itemsize):
            box = self.rows(first, last) if self.shape else self
            values = torch.empty(box.shape, dtype=self.dtype)
            self.stored.read_into(values, self.name, box.start)
            yield values


def merge(written: Iterable[Mapping[str, StoredTensor]]) -> dict[str, StoredTensor]:
    """The tensors of which several processes have written parts."""
    tensors: dict[str, StoredTensor] = {}
    for one in written:
        for name, tensor in one.items():
            before = tensors.get(name)
            tensors[name] = tensor if before is None else replace(before, parts=before.parts + tensor.parts)
    return tensors


def index_text(tensors: Mapping[str, StoredTensor]) -> str:
    """``index.json``.

    Raises:
        CheckpointError: the parts of a tensor do not make the whole of it.
    """
    for name, tensor in tensors.items():
        found = sum(torch.Size(part.shape).numel() for part in tensor.parts)
        if found != torch.Size(tensor.shape).numel():
            raise CheckpointError(f"{name} has {torch.Size(tensor.shape).numel()} values, {found} were written")
    return json.dumps(
        {
            name: {
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "shape": tensor.shape,
                "parts": [vars(part) for part in tensor.parts],
            }
            for name, tensor in sorted(tensors.items())
        }
    )


def bytes_of(values: Tensor) -> Any:
    """The memory of a contiguous tensor on the host."""
    return values.reshape(-1).view(torch.uint8).numpy()


def _from_json(values: Mapping[str, Any]) -> StoredTensor:
    parts = tuple(
        Part(part["file"], int(part["offset"]), tuple(part["start"]), tuple(part["shape"])) for part in values["parts"]
    )
    return StoredTensor(getattr(torch, values["dtype"]), tuple(values["shape"]), parts)
