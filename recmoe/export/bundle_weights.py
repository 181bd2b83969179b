"""BundleWeights: the weights of a bundle, table by table and file by file, mapped from disk."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from recmoe.embeddings.row_format import stored_format
from recmoe.errors import BundleError
from recmoe.export.contents import DENSE
from recmoe.export.weights import read_index, table_pieces, weight_name
from recmoe.model.stored_names import current_name


class BundleWeights:
    """Reads the weights of a bundle without building its model.

    Args:
        directory: of the bundle; its files are not compared with their hashes.

    Raises:
        BundleError: a file is missing or cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._index = read_index(directory)
        try:
            stored = safetensors.torch.load_file(directory / DENSE)
        except (OSError, SafetensorError) as error:
            raise BundleError(f"{directory}: its weights cannot be read: {error}; export the bundle again") from error
        self.dense: Mapping[str, Tensor] = {current_name(name): tensor for name, tensor in stored.items()}
        """Weights beside the tables, by their names in the model."""

    def files(self, table: str) -> Iterator[Tensor]:
        """The rows of a table in float32, file by file."""
        for rows in table_pieces(self._directory, self._index[weight_name(table)]):
            yield stored_format(rows.dtype).unpack(rows)
