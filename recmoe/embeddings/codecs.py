"""Codecs: the form in which vectors and their gradients travel between workers."""

# N numbers, G numbers of a group that shares a scale

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from recmoe.embeddings.sharding_config import CommunicationConfig
from recmoe.features.layout import InputLayout

with warnings.catch_warnings():
    # fbgemm's CPU wheel warns of kernels that it does not have, torch of what it will drop.
    warnings.simplefilter("ignore")
    import fbgemm_gpu  # noqa: F401  registers the int8 operators
    from torchrec.distributed.types import CommOp, QuantizedCommCodecs

FP16_GRADIENT_SCALE = 4096.0
"""Gradients of a mean over thousands of rows fall below what fp16 can hold; so many times larger they do not."""


class FloatCodec:
    """Every number as a float; torchrec's own codec scales gradients back before it widens them, and loses them.

    Args:
        dtype: float16, bfloat16 or float32.
        scale: what numbers are multiplied by on their way.
    """

    def __init__(self, dtype: torch.dtype, *, scale: float = 1.0) -> None:
        self.quantized_dtype = dtype
        self._scale = scale
        self._largest = torch.finfo(dtype).max

    def encode(self, input_tensor: Tensor, ctx: object = None) -> Tensor:
        """float32 → dtype; what is too large becomes the largest."""
        del ctx
        if self.quantized_dtype == torch.float32:
            return input_tensor
        return (input_tensor * self._scale).clamp(-self._largest, self._largest).to(self.quantized_dtype)

    def decode(self, input_grad: Tensor, ctx: object = None) -> Tensor:
        """dtype → float32."""
        del ctx
        return input_grad.to(torch.float32) / self._scale

    def calc_quantized_size(self, input_len: int, ctx: object = None) -> int:
        """Numbers that travel for so many."""
        del ctx
        return input_len

    def create_context(self) -> None:
        """There is nothing to remember between both ends."""

    def padded_size(
        self, input_tensor: Tensor, dim_per_rank: list[int], my_rank: int, qcomm_ctx: object
    ) -> tuple[int, int]:
        """Width of what travels, and how much of it is padding."""
        del dim_per_rank, my_rank, qcomm_ctx
        return input_tensor.shape[-1], 0


class Int8Codec:
    """Every number in 8 bits, with a float32 scale and offset per group of G: G + 8 bytes instead of 4 · G.

    torchrec's own takes groups of 32 whatever the widths, and fails on batches that do not fill them.

    Args:
        group: G; divides the width of every table.
    """

    quantized_dtype = torch.uint8

    def __init__(self, group: int) -> None:
        assert group % 4 == 0
        self._group = group

    def encode(self, input_tensor: Tensor, ctx: object = None) -> Tensor:
        """float32 → bytes."""
        del ctx
        coded: Tensor = torch.ops.fbgemm.FloatToFused8BitRowwiseQuantized(input_tensor.reshape(-1, self._group))
        return coded.view(-1)

    def decode(self, input_grad: Tensor, ctx: object = None) -> Tensor:
        """Bytes → float32."""
        del ctx
        plain: Tensor = torch.ops.fbgemm.Fused8BitRowwiseQuantizedToFloat(input_grad.view(-1, self._group + 8))
        return plain.view(-1)

    def calc_quantized_size(self, input_len: int, ctx: object = None) -> int:
        """Bytes that travel for so many numbers."""
        del ctx
        return input_len // self._group * (self._group + 8)

    def create_context(self) -> None:
        """There is nothing to remember between both ends."""

    def padded_size(
        self, input_tensor: Tensor, dim_per_rank: list[int], my_rank: int, qcomm_ctx: object
    ) -> tuple[int, int]:
        """Width of what travels, and how much of it is padding."""
        del dim_per_rank, my_rank, qcomm_ctx
        return input_tensor.shape[-1], 0


def make_codecs(communication: CommunicationConfig, layout: InputLayout) -> dict[str, QuantizedCommCodecs] | None:
    """torchrec's registry of codecs by kind of exchange; None where everything travels as it is."""
    if communication.is_plain:
        return None
    group = math.gcd(*(table.width for table in layout.tables))
    # Bytes with a scale of their own cannot be summed on their way.
    summed = "fp16" if communication.forward == "int8" else communication.forward
    return {
        exchange.name: QuantizedCommCodecs(
            forward=_codec(forward, group=group),
            backward=_codec(communication.backward, group=group, fp16_scale=FP16_GRADIENT_SCALE),
        )
        for exchange, forward in (
            (CommOp.POOLED_EMBEDDINGS_ALL_TO_ALL, communication.forward),
            (CommOp.POOLED_EMBEDDINGS_REDUCE_SCATTER, summed),
            (CommOp.SEQUENCE_EMBEDDINGS_ALL_TO_ALL, communication.forward),
        )
    }


def _codec(precision: str, *, group: int, fp16_scale: float = 1.0) -> Any:
    if precision == "int8":
        return Int8Codec(group)
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    return FloatCodec(dtype, scale=fp16_scale if precision == "fp16" else 1.0)
