"""Forms in which numbers travel: what arrives, and how much of it."""

import pytest
import torch

from recmoe.embeddings.codecs import FP16_GRADIENT_SCALE, FloatCodec, Int8Codec, make_codecs
from recmoe.embeddings.sharding_config import CommunicationConfig
from recmoe.features.layout import InputLayout, TableSpec

LAYOUT = InputLayout(
    tables=(TableSpec("user", 10, 24, "sum", ("user",)), TableSpec("tag", 5, 16, "mean", ("tag",))),
    sparse=(),
    dense=(),
)
NUMBERS = torch.linspace(-0.3, 0.5, 48)


def test_nothing_is_coded_where_everything_travels_as_it_is() -> None:
    assert make_codecs(CommunicationConfig(), LAYOUT) is None


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 0.0), (torch.float16, 3e-4), (torch.bfloat16, 2e-3)])
def test_floats_arrive_rounded(dtype: torch.dtype, error: float) -> None:
    codec = FloatCodec(dtype)

    sent = codec.encode(NUMBERS)

    assert (sent.dtype, len(sent)) == (dtype, codec.calc_quantized_size(48))
    torch.testing.assert_close(codec.decode(sent), NUMBERS, rtol=0, atol=error)


def test_int8_sends_a_scale_and_an_offset_with_every_group() -> None:
    codec = Int8Codec(8)

    sent = codec.encode(NUMBERS)

    assert (sent.dtype, len(sent)) == (torch.uint8, 48 + 6 * 8)
    assert codec.calc_quantized_size(48) == len(sent)
    torch.testing.assert_close(codec.decode(sent), NUMBERS, rtol=0, atol=1e-3)


def test_groups_divide_every_width_and_sums_travel_as_fp16() -> None:
    codecs = make_codecs(CommunicationConfig(forward="int8", backward="bf16"), LAYOUT)

    assert codecs is not None
    gathered, summed = codecs["POOLED_EMBEDDINGS_ALL_TO_ALL"], codecs["POOLED_EMBEDDINGS_REDUCE_SCATTER"]
    assert gathered.forward.calc_quantized_size(8) == 16
    assert gathered.backward.quantized_dtype == summed.backward.quantized_dtype == torch.bfloat16
    assert summed.forward.quantized_dtype == torch.float16


def test_small_gradients_survive_fp16() -> None:
    codecs = make_codecs(CommunicationConfig(backward="fp16"), LAYOUT)
    gradient = torch.tensor([1e-8, -3e-7, 1.0])

    assert codecs is not None
    codec = codecs["POOLED_EMBEDDINGS_ALL_TO_ALL"].backward
    sent = codec.encode(gradient)

    torch.testing.assert_close(codec.decode(sent), gradient, rtol=1e-3, atol=0)
    assert sent[0] == torch.tensor(1e-8 * FP16_GRADIENT_SCALE, dtype=torch.float16)
    assert gradient.half()[0] == 0


def test_what_is_too_large_becomes_the_largest() -> None:
    codec = FloatCodec(torch.float16, scale=4096.0)

    assert codec.decode(codec.encode(torch.tensor([1e6, -1e6]))).tolist() == [65504 / 4096, -65504 / 4096]
