"""Weights go to disk in pieces named by their content, and come back the same."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from recmoe.errors import BundleError
from recmoe.export.weights import StoredWeights, write_weights


def model(*, num_rows: int = 10, hidden: int = 3) -> nn.Module:
    """Two equal tables of two floats per row, and a dense layer."""
    layer = nn.Module()
    layer.tables = nn.ParameterDict(
        {name: nn.Parameter(torch.arange(2.0 * num_rows).reshape(num_rows, 2)) for name in ("a", "b")}
    )
    whole = nn.Module()
    whole.input_layer = layer
    whole.dense = nn.Linear(2, hidden)
    return whole


def test_weights_come_back_the_same(tmp_path: Path) -> None:
    written, read = model(), model()
    nn.init.zeros_(read.input_layer.tables["a"])

    write_weights(written, tmp_path, max_file_bytes=1000)
    StoredWeights.of(tmp_path).fill(read)

    for name, tensor in written.state_dict().items():
        assert torch.equal(read.state_dict()[name], tensor), name


def test_table_is_cut_below_the_limit_and_equal_pieces_are_one_file(tmp_path: Path) -> None:
    write_weights(model(), tmp_path, max_file_bytes=4 * 2 * 4)

    index = json.loads((tmp_path / "tables.json").read_text())
    assert [len(files) for files in index.values()] == [3, 3]
    assert index["input_layer.tables.a"] == index["input_layer.tables.b"]
    assert len(list((tmp_path / "tables").iterdir())) == 3
    read = model()
    nn.init.zeros_(read.input_layer.tables["b"])
    StoredWeights.of(tmp_path).fill(read)
    assert torch.equal(read.input_layer.tables["b"], model().input_layer.tables["b"])


def test_row_wider_than_the_limit_is_a_file_of_its_own(tmp_path: Path) -> None:
    write_weights(model(num_rows=2), tmp_path, max_file_bytes=1)

    assert len(list((tmp_path / "tables").iterdir())) == 2


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (model(num_rows=11), r"input_layer\.tables\.a has shape \[10, 2\], its config asks for \[11, 2\]"),
        (model(hidden=4), r"dense\.weight has shape \[3, 2\], its config asks for \[4, 2\]"),
        (nn.Linear(2, 3), "its weights lack weight, which its config asks for"),
        (nn.Module(), "its weights hold .*, which its config does not know"),
    ],
)
def test_weights_of_another_model_are_refused(tmp_path: Path, target: nn.Module, message: str) -> None:
    write_weights(model(), tmp_path, max_file_bytes=1000)

    with pytest.raises(BundleError, match=message):
        StoredWeights.of(tmp_path).fill(target)


def test_weights_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    write_weights(model(), tmp_path, max_file_bytes=1000)
    (tmp_path / "dense.safetensors").write_bytes(b"junk")

    with pytest.raises(BundleError, match=r"its weights cannot be read: .*; export the bundle again"):
        StoredWeights.of(tmp_path).fill(model())
