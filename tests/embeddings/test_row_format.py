"""Rows in fewer bytes: how far they are off, and that look-ups give what the unpacked rows give."""

import copy
import dataclasses

import pytest
import torch

from recmoe.embeddings.row_format import BF16, FLOAT32, INT8, RowFormat, stored_format
from recmoe.embeddings.tables import PlainTables
from recmoe.features.batch import Batch
from recmoe.features.layout import InputLayout

FORMATS = [BF16, INT8]


def rows(num_rows: int, width: int) -> torch.Tensor:
    return torch.randn(num_rows, width, generator=torch.Generator().manual_seed(num_rows)) * 3


def test_int8_is_off_by_half_a_step_at_most() -> None:
    rows_ND = rows(100, 12)
    rows_ND[3] *= 1e-6

    off_ND = (INT8.unpack(INT8.pack(rows_ND)) - rows_ND).abs()

    step_N = (rows_ND.amax(dim=1) - rows_ND.amin(dim=1)) / 255
    assert bool((off_ND.amax(dim=1) <= 0.5001 * step_N).all())
    assert bool((off_ND.amax(dim=1) > 0).all())


def test_int8_takes_a_byte_a_number_and_eight_a_row() -> None:
    packed = INT8.pack(rows(100, 12))

    assert (packed.dtype, packed.shape) == (torch.uint8, (100, 20))


@pytest.mark.parametrize("value", [0.0, -2.5, 1e30])
def test_row_of_equal_numbers_is_kept_as_it_is(value: float) -> None:
    rows_ND = torch.full((2, 4), value)

    assert torch.equal(INT8.unpack(INT8.pack(rows_ND)), rows_ND)


def test_rows_without_numbers_stay_so() -> None:
    assert INT8.unpack(INT8.pack(torch.zeros(3, 0))).shape == (3, 0)


def test_bf16_is_off_by_its_last_digit() -> None:
    rows_ND = rows(100, 12)

    torch.testing.assert_close(BF16.unpack(BF16.pack(rows_ND)), rows_ND, rtol=2**-8, atol=0)


@pytest.mark.parametrize("row_format", [FLOAT32, BF16, INT8])
def test_format_is_known_by_its_type(row_format: RowFormat) -> None:
    assert stored_format(row_format.dtype) is row_format
    assert stored_format(str(row_format.dtype).removeprefix("torch.")) is row_format
    assert stored_format("int64") is FLOAT32


def both(layout: InputLayout, row_format: RowFormat) -> tuple[PlainTables, PlainTables]:
    """Tables in a format, and float32 ones of what its rows unpack to."""
    packed = PlainTables(layout, formats={spec.name: row_format for spec in layout.tables}).eval()
    plain = PlainTables(layout).eval().requires_grad_(False)
    for number, spec in enumerate(layout.tables):
        packed.weight(spec.name).data = row_format.pack(rows(spec.num_rows, spec.width) + number)
        plain.weight(spec.name).data = row_format.unpack(packed.weight(spec.name).data)
    return packed, plain


@pytest.mark.parametrize("row_format", FORMATS)
def test_look_up_pools_unpacked_rows(row_format: RowFormat, layout: InputLayout, batch: Batch) -> None:
    packed, plain = both(layout, row_format)

    torch.testing.assert_close(packed(batch), plain(batch), rtol=0, atol=1e-6)


@pytest.mark.parametrize("row_format", FORMATS)
@pytest.mark.parametrize("names", [("query", "shop.id", "type"), ("query", "type")])
def test_one_id_a_row_is_the_unpacked_row(row_format: RowFormat, names: tuple[str, ...], layout: InputLayout) -> None:
    keys = [key for key in layout.sparse if key.name in names]
    batch = Batch(
        dense_BF=torch.zeros(3, 0),
        lengths_KB=torch.ones(len(keys), 3, dtype=torch.int32),
        values=torch.arange(3 * len(keys)) % 5,
        labels_BL=torch.zeros(3, 0),
    )
    packed, plain = both(layout, row_format)

    assert not any(key.is_list for key in keys)
    assert torch.equal(packed(batch, keys), plain(batch, keys))


def test_tables_of_several_formats_stand_side_by_side(layout: InputLayout, batch: Batch) -> None:
    packed, plain = both(layout, INT8)
    mixed = PlainTables(layout, formats={"tag": INT8, "type": BF16}).eval()
    for spec in layout.tables:
        stored = mixed._formats[spec.name].pack(plain.weight(spec.name).data)
        mixed.weight(spec.name).data = packed.weight(spec.name).data if spec.name == "tag" else stored
    one_each = dataclasses.replace(
        batch, lengths_KB=torch.ones(4, 2, dtype=torch.int32), values=torch.tensor([3, 4, 5, 9, 1, 1, 2, 0])
    )

    torch.testing.assert_close(mixed(one_each), plain(one_each), rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(mixed(batch), plain(batch), rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("row_format", FORMATS)
def test_histories_are_unpacked_rows(row_format: RowFormat, history_layout: InputLayout, history_batch: Batch) -> None:
    packed, plain = both(history_layout, row_format)

    found, expected = packed.look_up(history_batch), plain.look_up(history_batch)

    torch.testing.assert_close(found.pooled_BP, expected.pooled_BP, rtol=0, atol=1e-6)
    assert found.entries.keys() == expected.entries.keys()
    assert all(torch.equal(found.entries[name], expected.entries[name]) for name in expected.entries)


def test_copied_tables_learn_as_their_original(layout: InputLayout, batch: Batch) -> None:
    original = PlainTables(layout)

    copied = copy.deepcopy(original)
    copied(batch).sum().backward()

    assert copied.weight("tag").grad is not None
    assert copied.weight("tag").grad.coalesce().indices()[0].tolist() == [3, 4, 5, 9]
