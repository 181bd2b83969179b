"""RowFormat: in what form the rows of a table are kept for serving, and how they become float32 again.

Eight bits a number with a scale and an offset per row: Guan et al. 2019, https://arxiv.org/abs/1911.02079, section 2
(uniform asymmetric quantization, row by row).
"""

# N rows, D floats per row, C columns of a stored row

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

QuantizedName = Literal["bf16", "int8"]
_LEVELS = 255
_SCALE_BYTES = 8
"""Of a row: scale and offset, two float32."""


@dataclass(frozen=True)
class RowFormat:
    """One form of rows."""

    name: str
    dtype: torch.dtype
    num_extra: int
    """Columns of a stored row beyond its floats."""
    pack: Callable[[Tensor], Tensor]
    """float32 rows_ND → rows_NC."""
    unpack: Callable[[Tensor], Tensor]
    """rows_NC → float32 rows_ND."""

    @property
    def type_name(self) -> str:
        """The type of a stored row, such as float32."""
        return str(self.dtype).removeprefix("torch.")


def _same(rows_ND: Tensor) -> Tensor:
    return rows_ND


def _to_bf16(rows_ND: Tensor) -> Tensor:
    return rows_ND.to(torch.bfloat16)


def _to_int8(rows_ND: Tensor) -> Tensor:
    """Numbers as steps between the smallest and the largest of their row; then the size of a step, and the smallest."""
    if rows_ND.shape[1] == 0:
        return torch.zeros(len(rows_ND), _SCALE_BYTES, dtype=torch.uint8)
    low_N, high_N = rows_ND.aminmax(dim=1, keepdim=True)
    scale_N = (high_N - low_N) / _LEVELS
    # A row of equal numbers has no steps.
    steps_ND = (rows_ND - low_N) / scale_N.masked_fill(scale_N == 0, 1.0)
    scales = torch.cat([scale_N, low_N], dim=1).view(torch.uint8)
    return torch.cat([steps_ND.round().to(torch.uint8), scales], dim=1)


def _from_int8(rows_NC: Tensor) -> Tensor:
    scales_N2 = rows_NC[:, -_SCALE_BYTES:].contiguous().view(torch.float32)
    return torch.addcmul(scales_N2[:, 1:], rows_NC[:, :-_SCALE_BYTES].float(), scales_N2[:, :1])


FLOAT32 = RowFormat("fp32", torch.float32, 0, _same, _same)
"""As rows are trained."""
BF16 = RowFormat("bf16", torch.bfloat16, 0, _to_bf16, Tensor.float)
"""Half the bytes; 8 bits of a number's digits are kept."""
INT8 = RowFormat("int8", torch.uint8, _SCALE_BYTES, _to_int8, _from_int8)
"""A byte a number, and 8 bytes a row; a number is off by half a 255th of its row's range at most."""

_FORMATS = (FLOAT32, BF16, INT8)
assert {FLOAT32.name, *get_args(QuantizedName)} == {one.name for one in _FORMATS}


def named_format(name: QuantizedName) -> RowFormat:
    """The format of a name."""
    return next(one for one in _FORMATS if one.name == name)


def stored_format(dtype: torch.dtype | str) -> RowFormat:
    """The format of rows that are stored as a type; float32 for a type that no format has."""
    name = str(dtype).removeprefix("torch.")
    return next((one for one in _FORMATS if one.type_name == name), FLOAT32)
