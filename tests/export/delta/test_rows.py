"""Rows that differ, of any type and any bits: found, kept in a file, and put in their places again."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch import Tensor

from recmoe.errors import BundleError
from recmoe.export.delta.rows import NUMBERS, VALUES, apply_rows, changed_rows, write_rows


def table(path: Path, rows_ND: Tensor, name: str = "rows") -> Path:
    safetensors.torch.save_file({name: rows_ND}, path)
    return path


ROWS = torch.arange(48).reshape(12, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.uint8])
@pytest.mark.parametrize("numbers", [[0], [11], [3, 4, 5], [0, 2, 3, 7, 11], list(range(12))])
def test_changed_rows_are_found_and_put_back_byte_by_byte(
    tmp_path: Path, dtype: torch.dtype, numbers: list[int]
) -> None:
    base = table(tmp_path / "base", ROWS.to(dtype))
    changed = ROWS.to(dtype).clone()
    changed[numbers, 1] += 1
    new = table(tmp_path / "new", changed)

    found = changed_rows(base, new)
    assert found is not None
    write_rows(new, found, tmp_path / "rows")
    apply_rows(base, tmp_path / "rows", tmp_path / "made")

    assert found.tolist() == numbers
    assert (tmp_path / "made").read_bytes() == new.read_bytes()


def test_bits_count_and_not_numbers(tmp_path: Path) -> None:
    nan, other = (torch.tensor([bits], dtype=torch.int32).view(torch.float32) for bits in (0x7FC00000, 0x7FC00001))
    base = table(tmp_path / "base", torch.stack([nan, nan, torch.tensor([0.0])]))
    new = table(tmp_path / "new", torch.stack([nan, other, torch.tensor([-0.0])]))

    assert changed_rows(base, new).tolist() == [1, 2]


@pytest.mark.parametrize(
    "other",
    [
        {"rows_ND": ROWS[:11].float()},
        {"rows_ND": ROWS[:, :3].contiguous().float()},
        {"rows_ND": ROWS.reshape(6, 8).float()},
        {"rows_ND": ROWS.int()},
        {"rows_ND": ROWS.float(), "name": "other"},
    ],
)
def test_other_shape_type_or_name_is_more_than_rows(tmp_path: Path, other: dict[str, object]) -> None:
    base = table(tmp_path / "base", ROWS.float())

    assert changed_rows(base, table(tmp_path / "new", **other)) is None


def test_table_without_rows_has_none_that_could_change(tmp_path: Path) -> None:
    base, new = (table(tmp_path / name, torch.zeros(0, 4)) for name in ("base", "new"))

    assert changed_rows(base, new) is None


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([1, 12], "names row 12, its table has 12 rows; register the bundle again"),
        ([-1, 2], "names row -1, its table has 12 rows"),
        ([2**31 - 1, 3], "names row 2147483647, its table has 12 rows"),
        ([4, 3], "names row 3 after row 4: the numbers must increase"),
        ([4, 4], "names row 4 after row 4: the numbers must increase"),
    ],
)
def test_numbers_that_are_no_rows_or_in_no_order_are_refused(tmp_path: Path, numbers: list[int], message: str) -> None:
    base = table(tmp_path / "base", ROWS.float())
    rows = {NUMBERS: np.array(numbers, np.int32), VALUES: np.zeros((2, 16), np.uint8)}
    safetensors.numpy.save_file(rows, tmp_path / "rows")

    with pytest.raises(BundleError, match=message):
        apply_rows(base, tmp_path / "rows", tmp_path / "made")

    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "tensors",
    [
        {NUMBERS: np.zeros(2, np.int32)},
        {NUMBERS: np.zeros(2, np.int64), VALUES: np.zeros((2, 16), np.uint8)},
        {NUMBERS: np.zeros(2, np.int32), VALUES: np.zeros((2, 4), np.float32)},
        {NUMBERS: np.zeros(2, np.int32), VALUES: np.zeros((2, 15), np.uint8)},
        {NUMBERS: np.zeros(3, np.int32), VALUES: np.zeros((2, 16), np.uint8)},
        {NUMBERS: np.zeros(2, np.int32), VALUES: np.zeros((2, 16), np.uint8), "more": np.zeros(1)},
        {NUMBERS: np.zeros((2, 1), np.int32), VALUES: np.zeros((2, 16), np.uint8)},
        {NUMBERS: np.zeros(0, np.int32), VALUES: np.zeros((), np.uint8)},
    ],
)
def test_rows_of_another_shape_or_type_are_refused(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    base = table(tmp_path / "base", ROWS.float())
    safetensors.numpy.save_file(tensors, tmp_path / "rows")

    with pytest.raises(
        BundleError, match=r"does not hold numbers and values of rows of 16 bytes, as those of .*base are"
    ):
        apply_rows(base, tmp_path / "rows", tmp_path / "made")


def test_base_without_rows_is_refused(tmp_path: Path) -> None:
    base = table(tmp_path / "base", torch.zeros(3, 4), name="other")

    with pytest.raises(BundleError, match="base holds no rows of a table that could be changed"):
        apply_rows(base, tmp_path / "rows", tmp_path / "made")


def test_rows_that_cannot_be_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = table(tmp_path / "base", ROWS.float())
    rows = {NUMBERS: np.zeros(1, np.int32), VALUES: np.zeros((1, 16), np.uint8)}
    safetensors.numpy.save_file(rows, tmp_path / "rows")

    def fail(_: Path) -> None:
        raise OSError("the disk is away")

    monkeypatch.setattr(safetensors.numpy, "load_file", fail)
    with pytest.raises(BundleError, match="rows cannot be read: the disk is away; register the bundle again"):
        apply_rows(base, tmp_path / "rows", tmp_path / "made")
