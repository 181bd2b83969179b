"""The weights of a model as safetensors files: tables in pieces named by their content, the rest in one."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from recmoe.errors import BundleError
from recmoe.model.stored_names import current_name

TABLE_PREFIX = "input_layer.tables."
"""Names of a model's table weights begin so."""

DENSE = "dense.safetensors"
INDEX = "tables.json"
ROWS = "rows"


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
    folder = directory / "tables"
    folder.mkdir()
    index = {name: _write_table(tensor, folder, max_file_bytes) for name, tensor in tables.items()}
    (directory / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def read_weights(model: nn.Module, directory: Path) -> None:
    """Fill a model from what ``write_weights`` wrote; a table of one file stays on disk until it is touched.

    Raises:
        BundleError: a weight is missing or of another shape than the model's, or a file cannot be read.
    """
    try:
        stored = safetensors.torch.load_file(directory / DENSE)
        state = {current_name(name): tensor for name, tensor in stored.items()}
        index: Mapping[str, list[str]] = json.loads((directory / INDEX).read_text(encoding="utf-8"))
        for name, files in index.items():
            pieces = [safetensors.torch.load_file(directory / "tables" / file)[ROWS] for file in files]
            state[name] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise BundleError(f"{directory}: its weights cannot be read: {error}; export the bundle again") from error
    for name, wanted in model.state_dict().items():
        found = state.get(name)
        if found is None:
            raise BundleError(f"{directory}: its weights lack {name}, which its config asks for; export it again")
        if found.shape != wanted.shape:
            raise BundleError(
                f"{directory}: {name} has shape {list(found.shape)}, its config asks for {list(wanted.shape)}; "
                "export it again"
            )
    # Weights that are not the model's mean another config, even where the rest fits.
    for name in state.keys() - model.state_dict().keys():
        raise BundleError(f"{directory}: its weights hold {name}, which its config does not know; export it again")
    model.load_state_dict(state, assign=True)


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
