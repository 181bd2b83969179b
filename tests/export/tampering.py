"""Ways to tamper with a file of a bundle, and to make its hashes anew, as one would who changes it for a purpose."""

import functools
import hashlib
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch

from recmoe.export.manifest import FileEntry, digest_of, hash_of
from recmoe.features import encoder_state

HUGE = 10**14


@dataclass(frozen=True)
class Place:
    """A bundle that may be changed: its files are hard links to those of one that must not."""

    bundle: Path
    outside: Path
    """A folder beside it that no load may look into."""
    mark: Path
    """Made by code that must not run."""

    def put(self, name: str, content: bytes) -> None:
        """A file of its own, in the place of a link."""
        (self.bundle / name).unlink()
        (self.bundle / name).write_bytes(content)


Way = Callable[[Place, str], None]


class Code:
    """A pickle that makes a folder when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


def flip(at: float) -> Way:
    def change(place: Place, name: str) -> None:
        content = bytearray((place.bundle / name).read_bytes())
        content[min(int(len(content) * at), len(content) - 1)] ^= 4
        place.put(name, bytes(content))

    return change


def cut(place: Place, name: str, *, keep: Callable[[int], int]) -> None:
    content = (place.bundle / name).read_bytes()
    place.put(name, content[: keep(len(content))])


def move(place: Place, name: str) -> Path:
    return Path(shutil.move(place.bundle / name, place.outside / Path(name).name))


def link(place: Place, name: str) -> None:
    """To a file with the very same content."""
    (place.bundle / name).symlink_to(move(place, name))


def pipe(place: Place, name: str) -> None:
    (place.bundle / name).unlink()
    os.mkfifo(place.bundle / name)


def folder(place: Place, name: str) -> None:
    (place.bundle / name).unlink()
    (place.bundle / name).mkdir()


def lead_outside(place: Place, name: str, *, absolute: bool) -> None:
    """The same content, elsewhere; whatever names the file names that."""
    elsewhere = move(place, name)
    named = str(elsewhere) if absolute else f"../{place.outside.name}/{elsewhere.name}"
    for document in ("manifest.json", "tables.json", "encoder/encoder.json"):
        path = place.bundle / document
        if path.exists():
            text = path.read_text()
            for known in (name, Path(name).name):
                text = text.replace(f'"{known}"', f'"{named}"')
            place.put(document, text.encode())


def pickled(place: Place, name: str) -> None:
    place.put(name, pickle.dumps(Code(place.mark)))


def saved_by_torch(place: Place, name: str) -> None:
    torch.save({"rows": Code(place.mark)}, place.outside / "saved")
    place.put(name, (place.outside / "saved").read_bytes())


def deep_in_its_place(place: Place, name: str) -> None:
    """The first value of a document, or all of another file, is brackets inside brackets."""
    content = (place.bundle / name).read_bytes()
    head = content[: content.index(b":") + 1] if name.endswith(".json") else b""
    place.put(name, head + b"[" * 100_000 + b"]" * 100_000 + (b"}" if head else b""))


@functools.cache
def deep_columns() -> bytes:
    """Parquet's schema with a column inside of ten thousand others, at which Arrow runs out of stack."""
    lists = b"\x35\x02\x18\x01a\x15\x02\x00" * 10_000
    leaf = b"\x15\x02\x25\x02\x18\x01a\x00"
    count = 10_002
    schema = b"\x48\x06schema\x15\x02\x00" + lists + leaf
    footer = b"\x15\x04\x19\xfc" + bytes([count & 127 | 128, count >> 7]) + schema + b"\x16\x00\x19\x0c\x00"
    return b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1"


@functools.cache
def large_from_small(suffix: str) -> bytes:
    """A file that is small, and gigabytes in memory."""
    sink = pa.BufferOutputStream()
    if suffix == ".parquet":
        text = pa.array(["x" * 2**20])
        column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3000, np.int32)), text)
        pq.write_table(pa.table({"a": column}), sink, store_schema=False)
    elif suffix == ".arrow":
        num_bytes = 400 * 2**20
        buffers = [None, pa.py_buffer(np.array([0, num_bytes])), pa.py_buffer(bytes(num_bytes))]
        ids = pa.table({"id": pa.Array.from_buffers(pa.large_string(), 1, buffers)})
        with pa.ipc.new_file(sink, ids.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(ids)
    elif suffix == ".safetensors":
        return in_safetensors({f"{number}": {"dtype": "F32", "shape": [HUGE, 0]} for number in range(20_000)})
    else:
        return b'{"a": [' + b"[]," * 200_000 + b"1" * 1_000_000 + b"]}"
    content: bytes = sink.getvalue().to_pybytes()
    return content


def in_safetensors(header: dict[str, Any]) -> bytes:
    text = json.dumps({name: {**tensor, "data_offsets": [0, 0]} for name, tensor in header.items()}).encode()
    return struct.pack("<Q", len(text)) + text


def large(place: Place, name: str) -> None:
    suffix = Path(name).suffix if name != "encoder/columns.arrow" else ".json"
    place.put(name, large_from_small(suffix))


def huge_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: huge_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [huge_numbers(inner) for inner in value]
    return HUGE if isinstance(value, int) and not isinstance(value, bool) else value


def huge_shapes(place: Place, name: str) -> None:
    """As many rows as a file of its format may say that it has, and no values."""
    path, sink = place.bundle / name, pa.BufferOutputStream()
    if name.endswith(".json"):
        document = json.loads(path.read_text())
        # Some hold no numbers.
        if huge_numbers(document) != document:
            place.put(name, json.dumps(huge_numbers(document)).encode())
    elif name.endswith(".safetensors"):
        tensors = safetensors.torch.load_file(path)
        header = {tensor: {"dtype": "F32", "shape": [HUGE, 8], "data_offsets": [0, 32 * HUGE]} for tensor in tensors}
        text = json.dumps(header).encode()
        place.put(name, struct.pack("<Q", len(text)) + text)
    elif name.endswith(".parquet"):
        rows = pq.read_table(path)
        pq.write_table(pa.table({column: pa.nulls(2_000_000) for column in rows.column_names}), sink)
        place.put(name, sink.getvalue().to_pybytes())
    elif name == "encoder/columns.arrow":
        place.put(name, pa.schema([(f"c{number}", pa.int8()) for number in range(50_000)]).serialize().to_pybytes())
    else:
        with pa.ipc.new_file(sink, pa.schema([("id", pa.null())])) as writer:
            writer.write_table(pa.table({"id": pa.nulls(10**9)}))
        place.put(name, sink.getvalue().to_pybytes())


def without_rows(place: Place, name: str) -> None:
    """A file of its format that holds nothing."""
    path, sink = place.bundle / name, pa.BufferOutputStream()
    if name.endswith(".json"):
        place.put(name, b"{}")
    elif name.endswith(".safetensors"):
        empty = {tensor: values[..., :0].contiguous() for tensor, values in safetensors.torch.load_file(path).items()}
        place.put(name, safetensors.torch.save(empty))
    elif name.endswith(".parquet"):
        pq.write_table(pq.read_table(path).slice(0, 0), sink)
        place.put(name, sink.getvalue().to_pybytes())
    elif name == "encoder/columns.arrow":
        place.put(name, pa.schema([]).serialize().to_pybytes())
    else:
        with pa.ipc.open_file(path.read_bytes()) as reader, pa.ipc.new_file(sink, reader.schema) as writer:
            writer.write_table(reader.read_all().slice(0, 0))
        place.put(name, sink.getvalue().to_pybytes())


def replay_without_rows(place: Place, name: str) -> None:
    """The whole replay, consistently, and the file besides."""
    for part in ("replay.parquet", "replay_scores.parquet"):
        without_rows(place, part)
    types = {"dense": torch.zeros(0, 1), "lengths": torch.zeros(1, 0).int(), "values": torch.zeros(0).long()}
    place.put("replay_encoded.safetensors", safetensors.torch.save(types))
    if not name.startswith("replay"):
        flip(0.9)(place, name)


WAYS: dict[str, Way] = {
    "first bits": flip(0),
    "a bit early on": flip(0.1),
    "a bit in the middle": flip(0.5),
    "last bits": flip(1),
    "cut by a byte": functools.partial(cut, keep=lambda size: size - 1),
    "cut in half": functools.partial(cut, keep=lambda size: size // 2),
    "emptied": functools.partial(cut, keep=lambda _: 0),
    "longer": lambda place, name: place.put(name, (place.bundle / name).read_bytes() + b"0"),
    "removed": lambda place, name: (place.bundle / name).unlink(),
    "outside path": functools.partial(lead_outside, absolute=False),
    "absolute path": functools.partial(lead_outside, absolute=True),
    "link": link,
    "pipe": pipe,
    "folder": folder,
    "pickle": pickled,
    "pickle of torch": saved_by_torch,
    "deep JSON": deep_in_its_place,
    "deep columns": lambda place, name: place.put(name, deep_columns()),
    "huge shapes": huge_shapes,
    "large from small": large,
    "no rows": without_rows,
    "empty replay": replay_without_rows,
}


def made_anew(place: Place) -> None:
    """All hashes of a bundle, as far as its documents can still be read."""
    _name_tables(place)
    fingerprint = _fingerprint(place)
    manifest = _document(place, "manifest.json")
    if manifest is None:
        return
    listed = manifest.get("files")
    elsewhere = [name for name in listed if name.startswith(("/", "../"))] if isinstance(listed, dict) else []
    there = [path.relative_to(place.bundle).as_posix() for path in place.bundle.rglob("*") if not path.is_dir()]
    files = {name: _entry(place.bundle / name) for name in sorted([*elsewhere, *there]) if name != "manifest.json"}
    manifest |= {"files": {name: vars(entry) for name, entry in files.items()}, "digest": digest_of(files)}
    if fingerprint is not None:
        manifest["schema_fingerprint"] = fingerprint
    manifest.pop("sha256", None)
    place.put("manifest.json", json.dumps({**manifest, "sha256": hash_of(manifest)}).encode())


def _name_tables(place: Place) -> None:
    """Tables are called after what they hold."""
    index = (place.bundle / "tables.json").read_bytes() if (place.bundle / "tables.json").is_file() else b""
    for path in sorted((place.bundle / "tables").iterdir()):
        if path.is_file() and not path.is_symlink():
            name = f"{hashlib.sha256(path.read_bytes()).hexdigest()}.safetensors"
            path.rename(path.with_name(name))
            index = index.replace(path.name.encode(), name.encode())
    if index and index != (place.bundle / "tables.json").read_bytes():
        place.put("tables.json", index)


def _fingerprint(place: Place) -> str | None:
    """That of the encoder, written into its document; None where it cannot be computed."""
    document = _document(place, "encoder/encoder.json")
    if document is None or not all(path.is_file() for path in (place.bundle / "encoder").iterdir()):
        return None
    try:
        _, labels, state = encoder_state._parse(place.bundle / "encoder", document)
    except Exception:
        return None
    document["fingerprint"] = encoder_state.fingerprint(labels, state)
    place.put("encoder/encoder.json", json.dumps(document).encode())
    return str(document["fingerprint"])


def _document(place: Place, name: str) -> dict[str, Any] | None:
    path = place.bundle / name
    try:
        document = json.loads(path.read_bytes()) if path.is_file() and not path.is_symlink() else None
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _entry(path: Path) -> FileEntry:
    content = path.read_bytes() if path.is_file() else b""
    return FileEntry(len(content), hashlib.sha256(content).hexdigest())
