"""Tests of the weights of a bundle, read without its model."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from recmoe.errors import BundleError
from recmoe.export.bundle import ModelBundle
from recmoe.export.bundle_weights import BundleWeights


def test_files_of_a_table_follow_each_other(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    # Rows of eight floats, four of them the linear part's: three rows a file.
    path = make_bundle(tmp_path / "small", max_file_bytes=3 * 8 * 4)

    files = list(BundleWeights(path).files("item_id"))

    weight = ModelBundle.load(path).model.input_layer.tables.get_parameter("tables.item_id")
    assert [len(rows_ND) for rows_ND in files[:-1]] == [3] * ((len(weight) - 1) // 3)
    assert torch.equal(torch.cat(files), weight)


def test_lost_weights_are_named(bundle_path: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle_path, tmp_path / "lost")
    (tmp_path / "lost" / "tables.json").unlink()

    with pytest.raises(BundleError, match=r"lost: its weights cannot be read: .*tables\.json.*export the bundle again"):
        BundleWeights(tmp_path / "lost")
