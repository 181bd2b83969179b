"""TensorHeader: shape and type of a stored tensor, read from the head of its file without its values."""

import math
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from recmoe.errors import BundleError


class TensorHeader(NamedTuple):
    """What a tensor is before its values are read."""

    shape: tuple[int, ...]
    dtype: str
    """As torch calls it, such as float32."""

    @property
    def num_elements(self) -> int:
        """Numbers that it holds."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes that it takes."""
        return self.num_elements * _BYTES[self.dtype]


_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1,
    "uint8": 1, "bool": 1,
}  # fmt: skip


def header_of(tensor: Tensor) -> TensorHeader:
    """That of a tensor in memory."""
    return TensorHeader(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def read_headers(path: Path) -> dict[str, TensorHeader]:
    """Those of a safetensors file, by name.

    Raises:
        BundleError: the file is missing or damaged, or holds numbers of a type that no model has.
    """
    headers = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                part = file.get_slice(name)
                headers[name] = TensorHeader(tuple(part.get_shape()), _NAMES.get(part.get_dtype(), part.get_dtype()))
    except (OSError, SafetensorError) as error:
        raise BundleError(
            f"{path.parent}: its weights cannot be read: {path}: {error}; export the bundle again"
        ) from error
    for name, header in headers.items():
        if header.dtype not in _BYTES:
            raise BundleError(f"{path}: {name} is of type {header.dtype}, which no model has; export the bundle again")
    return headers
