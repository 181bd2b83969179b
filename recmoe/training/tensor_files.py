"""Files of logical tensors: written in one pass with their hashes, read box by box.

A folder of tensors::

    index.json          {"tables/user": {"dtype": "float32", "shape": [10, 8], "parts": [
                            {"file": "0-0.safetensors", "offset": 128, "start": [0, 0], "shape": [10, 4]}, …]}, …}
    0-0.safetensors     parts written by rank 0, each under the key NAME@START, such as tables/user@0,4
    1-0.safetensors     …

Any tool that knows safetensors reads the files. No more than a block of a tensor is held in memory.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from recmoe.training.pieces import Box, num_bytes
from recmoe.training.stored_tensors import Part, StoredTensor, bytes_of

MAX_FILE_BYTES = 1 << 30
"""Tensors in one file; files are what ranks share out when a checkpoint is verified."""
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls the types."""


@dataclass(frozen=True)
class Written:
    """What a process has written: its tensors, and size and hash of every file."""

    tensors: Mapping[str, StoredTensor]
    files: Mapping[str, Mapping[str, Any]]


def write_boxes(folder: Path, boxes: Sequence[Box], *, prefix: str, max_file_bytes: int = MAX_FILE_BYTES) -> Written:
    """Write boxes to files ``<prefix>-<number>.safetensors`` of at most so many bytes, or of one row; synced."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Mapping[str, Any]] = {}
    tensors: dict[str, StoredTensor] = {}
    for number, group in enumerate(_grouped(boxes, max_file_bytes)):
        name = f"{prefix}-{number}.safetensors"
        offsets, files[name] = write_file(folder / name, [(key_of(box), box) for box in group])
        for box, offset in zip(group, offsets, strict=True):
            known = tensors.get(box.name, StoredTensor(box.dtype, box.whole, ()))
            part = Part(name, offset, box.start, box.shape)
            tensors[box.name] = replace(known, parts=(*known.parts, part))
    return Written(tensors, files)


def key_of(box: Box) -> str:
    """What a part is called inside its file."""
    return f"{box.name}@{','.join(map(str, box.start))}"


def write_file(path: Path, boxes: Sequence[tuple[str, Box]]) -> tuple[list[int], dict[str, Any]]:
    """Write one safetensors file in one pass, and wait until the disk has it.

    Returns:
        The offset in bytes of every box, and size and SHA-256 of the file.
    """
    header: dict[str, Any] = {}
    position = 0
    for key, box in boxes:
        end = position + num_bytes(box.shape, box.dtype)
        header[key] = {"dtype": DTYPES[box.dtype], "shape": list(box.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:

        def put(data: Any) -> None:
            file.write(data)
            digest.update(data)

        put(len(text).to_bytes(8, "little"))
        put(text)
        for _, box in boxes:
            for block in box.blocks():
                put(bytes_of(block))
        size = file.tell()
        file.flush()
        os.fsync(file.fileno())
    begin = 8 + len(text)
    assert size == begin + position, f"{path}: the boxes gave {size - begin} bytes instead of {position}"
    offsets = [begin + header[key]["data_offsets"][0] for key, _ in boxes]
    return offsets, {"size": size, "sha256": digest.hexdigest()}


def _grouped(boxes: Sequence[Box], max_file_bytes: int) -> Iterator[list[Box]]:
    """Boxes by file, in their order; a box that is too large for one is cut into ranges of rows."""
    group: list[Box] = []
    room = max_file_bytes
    for box in boxes:
        for part in cut(box, max_file_bytes):
            size = num_bytes(part.shape, part.dtype)
            if group and size > room:
                yield group
                group, room = [], max_file_bytes
            group.append(part)
            room -= size
    if group:
        yield group


def cut(box: Box, max_bytes: int) -> Iterator[Box]:
    """A box as ranges of rows of at most so many bytes, or of one row; whole if it is small."""
    size = num_bytes(box.shape, box.dtype)
    if size <= max_bytes or not box.shape:
        yield box
        return
    step = max(1, max_bytes * box.shape[0] // size)
    for first in range(0, box.shape[0], step):
        yield box.rows(first, min(box.shape[0], first + step))
