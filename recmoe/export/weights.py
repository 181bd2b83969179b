"""The weights of a model as safetensors files: tables in pieces named by their content, the rest in one."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from torch import Tensor, nn

from recmoe.embeddings.tables import member_name
from recmoe.errors import BundleError
from recmoe.export.contents import DENSE, INDEX, TABLE_FILE, TABLES, shown
from recmoe.export.tensor_header import TensorHeader, header_of, read_headers
from recmoe.json_document import checked, read_object
from recmoe.model.stored_names import current_name

TABLE_PREFIX = "input_layer.tables."
"""Names of a model's table weights begin so."""

ROWS = "rows"

MAX_REPEATED_BYTES = 2**28
"""What pieces of tables that stand for several may take in memory, beyond ``MAX_REPEATS`` times the files."""
MAX_REPEATS = 16

_INDEX = TypeAdapter(dict[str, list[str]])


def weight_name(table: str) -> str:
    """The name of a table's weight in a model's state."""
    return f"{TABLE_PREFIX}tables.{member_name(table)}"


def write_weights(model: nn.Module, directory: Path, *, max_file_bytes: int) -> None:
    """Write a model's state.

    A table becomes files of consecutive rows, ``tables/<sha256>.safetensors``, each below the limit
    (or of one row); equal pieces are one file. ``tables.json`` says which files make which table::

        {"input_layer.tables.tables.user": ["3f2a….safetensors", "9c1d….safetensors"]}
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    tables = {name: tensor for name, tensor in state.items() if name.startswith(TABLE_PREFIX)}
    dense = {name: tensor for name, tensor in state.items() if name not in tables}
    (directory / DENSE).write_bytes(safetensors.torch.save(dense))
    folder = directory / TABLES
    folder.mkdir()
    index = {name: _write_table(tensor, folder, max_file_bytes) for name, tensor in tables.items()}
    (directory / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def read_index(directory: Path) -> dict[str, list[str]]:
    """The files of each table, by the name of its weight; each lies in the bundle's own folder.

    Raises:
        BundleError: it cannot be read, or names a file that no bundle has.
    """
    path = directory / INDEX
    try:
        index = checked(_INDEX, read_object(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{directory}: its weights cannot be read: {path}: {error}; export the bundle again"
        ) from error
    for name, files in index.items():
        for file in files:
            if not TABLE_FILE.fullmatch(file):
                raise BundleError(
                    f"{path} names the file {shown(file)} for {shown(name)}, which no bundle has; export it again"
                )
    return index


@dataclass(frozen=True)
class StoredWeights:
    """What the files of a bundle hold, by the names of today: read from their heads, before a weight is."""

    directory: Path
    headers: Mapping[str, TensorHeader]
    """Of every weight."""
    index: Mapping[str, Sequence[str]]
    """The files of each table."""

    @classmethod
    def of(cls, directory: Path) -> "StoredWeights":
        """Those of a bundle.

        Raises:
            BundleError: a file is missing or damaged, or the pieces of a table do not fit each other.
        """
        headers = {current_name(name): header for name, header in read_headers(directory / DENSE).items()}
        index = read_index(directory)
        pieces = {
            file: _rows_of(directory / TABLES / file) for file in {file for files in index.values() for file in files}
        }
        for name, files in index.items():
            headers[name] = _joined(directory, name, [pieces[file] for file in files])
        once = sum(header.num_bytes for header in pieces.values())
        together = sum(headers[name].num_bytes for name in index)
        if together > MAX_REPEATS * once + MAX_REPEATED_BYTES:
            raise BundleError(
                f"{directory / INDEX} makes tables of {together:,} bytes of files of {once:,}; export the bundle again"
            )
        return cls(directory, headers, index)

    @property
    def longest(self) -> int:
        """The longest side of any weight."""
        return max((max(header.shape, default=1) for header in self.headers.values()), default=0)

    @property
    def num_dense(self) -> int:
        """Numbers in all weights beside the tables."""
        return sum(header.num_elements for name, header in self.headers.items() if name not in self.index)

    def check(self, wanted: Mapping[str, TensorHeader]) -> None:
        """Compare some weights with what a model asks for.

        Raises:
            BundleError: one is missing, or of another shape or type.
        """
        for name, header in wanted.items():
            found = self.headers.get(name)
            if found is None:
                raise BundleError(
                    f"{self.directory}: its weights lack {name}, which its config asks for; export it again"
                )
            if found.shape != header.shape:
                raise BundleError(
                    f"{self.directory}: {name} has shape {list(found.shape)}, its config asks for "
                    f"{list(header.shape)}; export it again"
                )
            if found.dtype != header.dtype:
                raise BundleError(
                    f"{self.directory}: {name} is of type {found.dtype}, the model's of {header.dtype}; export it again"
                )

    def fill(self, model: nn.Module) -> None:
        """Give a model its weights; a table of one file stays on disk until it is touched.

        Raises:
            BundleError: a weight is missing, too much, of another shape or type, or a file cannot be read.
        """
        wanted = {name: header_of(tensor) for name, tensor in model.state_dict().items()}
        self.check(wanted)
        # Weights that are not the model's mean another config, even where the rest fits.
        for name in self.headers.keys() - wanted.keys():
            raise BundleError(
                f"{self.directory}: its weights hold {name}, which its config does not know; export it again"
            )
        try:
            stored = safetensors.torch.load_file(self.directory / DENSE)
            state = {current_name(name): tensor for name, tensor in stored.items()}
            for name, files in self.index.items():
                pieces = list(table_pieces(self.directory, files))
                state[name] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        except (OSError, SafetensorError) as error:
            raise BundleError(
                f"{self.directory}: its weights cannot be read: {error}; export the bundle again"
            ) from error
        model.load_state_dict(state, assign=True)


def table_pieces(directory: Path, files: Sequence[str]) -> Iterator[Tensor]:
    """The rows of a table, file by file, mapped from disk."""
    for file in files:
        yield safetensors.torch.load_file(directory / TABLES / file)[ROWS]


def _rows_of(path: Path) -> TensorHeader:
    """The one tensor of a piece of a table."""
    headers = read_headers(path)
    if list(headers) != [ROWS] or len(headers[ROWS].shape) != 2:
        raise BundleError(f"{path} holds no rows of a table; export the bundle again")
    return headers[ROWS]


def _joined(directory: Path, name: str, pieces: Sequence[TensorHeader]) -> TensorHeader:
    """Pieces one below the other."""
    if len({(piece.shape[1], piece.dtype) for piece in pieces}) != 1:
        raise BundleError(f"{directory}: the pieces of {name} do not fit each other; export the bundle again")
    return TensorHeader((sum(piece.shape[0] for piece in pieces), pieces[0].shape[1]), pieces[0].dtype)


def _write_table(table: Tensor, folder: Path, max_file_bytes: int) -> list[str]:
    """File names of the pieces of a table, in the order of its rows."""
    row_bytes = table[:1].numel() * table.element_size()
    num_rows = max(1, max_file_bytes // max(1, row_bytes))
    names = []
    for rows in torch.split(table, num_rows):
        # A view would be saved with all of the storage behind it.
        content = safetensors.torch.save({ROWS: rows.clone()})
        name = f"{hashlib.sha256(content).hexdigest()}.safetensors"
        if not (folder / name).exists():
            (folder / name).write_bytes(content)
        names.append(name)
    return names
