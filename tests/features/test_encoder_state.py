"""Tests of saving and loading an encoder, and of its fingerprint."""

import dataclasses
import errno
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from recmoe.errors import DataError
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.encoder_state import fingerprint, save_encoder
from recmoe.features.encodings import HashConfig
from recmoe.features.kinds import IdFeature, IdListFeature, NumericFeature
from recmoe.features.labels import LabelColumn
from recmoe.features.schema import FeatureSchema

LOG = pa.table(
    {
        "a/b": ["é", "x", None, "x"],
        "tags": [["x"], None, ["y", "z"], []],
        "price": [0.1, 0.2, None, 0.7],
        "shop": [1, 2, 3, 4],
        "click": [0, 1, 1, 0],
    }
)


def _encoder(table: pa.Table = LOG, *, labels: tuple[str, ...] = ("click",), **features: Any) -> FeatureEncoder:
    schema = FeatureSchema(
        features={
            "a/b": IdFeature(side="user"),
            "tags": IdListFeature(),
            "price": NumericFeature(forms=("value", "vector", "bucket")),
            "shop": IdFeature(encoding=HashConfig()),
            **features,
        }
    )
    return FeatureEncoder.fit(schema, [table], [LabelColumn(column=label, is_binary=True) for label in labels])


def test_loaded_encoder_encodes_alike(tmp_path: Path) -> None:
    encoder = _encoder()

    encoder.save(tmp_path / "encoder")
    loaded = FeatureEncoder.load(tmp_path / "encoder")

    batch, same = encoder.encode(LOG), loaded.encode(LOG)
    assert (loaded.schema, loaded.labels, loaded.layout) == (encoder.schema, encoder.labels, encoder.layout)
    assert loaded.fingerprint == encoder.fingerprint
    assert loaded.arrow_schema() == encoder.arrow_schema()
    assert torch.equal(batch.dense_BF, same.dense_BF)
    assert torch.equal(batch.lengths_KB, same.lengths_KB)
    assert torch.equal(batch.values, same.values)
    assert torch.equal(batch.labels_BL, same.labels_BL)


def test_nothing_saved_is_a_pickle(tmp_path: Path) -> None:
    _encoder().save(tmp_path)

    names = sorted(path.name for path in tmp_path.iterdir())

    assert names == ["columns.arrow", "encoder.json", "vocabulary_0.arrow", "vocabulary_1.arrow"]


def test_fingerprint_is_the_same_for_the_same_data_and_differs_for_all_else() -> None:
    fingerprint = _encoder().fingerprint

    assert _encoder(LOG.slice(0)).fingerprint == fingerprint
    others = {
        _encoder(LOG.slice(1)).fingerprint,
        _encoder(labels=()).fingerprint,
        _encoder(price=NumericFeature()).fingerprint,
        _encoder(LOG.set_column(3, "shop", pa.array(["1", "2", "3", "4"]))).fingerprint,
        _encoder(LOG.set_column(0, "a/b", pa.array(["é", "y", None, "y"]))).fingerprint,
        fingerprint,
    }
    assert len(others) == 6


def test_order_of_features_is_part_of_the_fingerprint() -> None:
    a, b = IdFeature(), IdFeature(encoding=HashConfig())
    table = pa.table({"a": [1], "b": [2]})

    one, other = (FeatureEncoder.fit(FeatureSchema(features=f), [table]) for f in ({"a": a, "b": b}, {"b": b, "a": a}))

    assert one.fingerprint != other.fingerprint


def test_schema_saved_before_a_field_was_added_keeps_its_fingerprint(tmp_path: Path) -> None:
    state = _encoder().state
    inputs = {name: value for name, value in state.inputs.items() if name != "seed"}
    old = dataclasses.replace(state, inputs=inputs)
    stored = fingerprint((), old)

    save_encoder(tmp_path, labels=(), state=old, fingerprint=stored)
    FeatureEncoder.load(tmp_path).save(tmp_path / "again")

    assert FeatureEncoder.load(tmp_path / "again").fingerprint == stored


def test_encoder_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)

    with pytest.raises(OSError, match="No space left"):
        _encoder().save(tmp_path / "encoder")

    assert not list(tmp_path.iterdir())


def test_encoder_is_not_written_over_other_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(DataError, match="holds other files than an encoder's; give a new folder, or empty it"):
        _encoder().save(tmp_path)


def test_saved_encoder_replaces_the_one_before(tmp_path: Path) -> None:
    _encoder().save(tmp_path)

    _encoder(labels=()).save(tmp_path)

    assert FeatureEncoder.load(tmp_path).labels == ()


def test_folder_without_an_encoder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"nothing: the encoder cannot be read: .*encoder\.json.*; fit it again, or copy"
    ):
        FeatureEncoder.load(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["encoder.json", "columns.arrow", "vocabulary_0.arrow"])
def test_cut_file_is_an_error(tmp_path: Path, name: str) -> None:
    _encoder().save(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])

    with pytest.raises(DataError, match=r"the encoder cannot be read: .*; fit it again, or copy it again"):
        FeatureEncoder.load(tmp_path)


def test_missing_vocabulary_is_an_error(tmp_path: Path) -> None:
    _encoder().save(tmp_path)
    (tmp_path / "vocabulary_1.arrow").unlink()

    with pytest.raises(DataError, match=r"the encoder cannot be read: .*vocabulary_1"):
        FeatureEncoder.load(tmp_path)


def test_changed_file_does_not_match_the_fingerprint(tmp_path: Path) -> None:
    _encoder().save(tmp_path)
    document = json.loads((tmp_path / "encoder.json").read_text())
    document["numbers"]["price"]["mean"] += 1e-9
    (tmp_path / "encoder.json").write_text(json.dumps(document))

    with pytest.raises(DataError, match="the encoder's files do not match its fingerprint; fit it again"):
        FeatureEncoder.load(tmp_path)


def test_other_format_is_an_error(tmp_path: Path) -> None:
    _encoder().save(tmp_path)
    document = json.loads((tmp_path / "encoder.json").read_text())
    (tmp_path / "encoder.json").write_text(json.dumps({**document, "format": 99}))

    with pytest.raises(DataError, match="the encoder is of format 99, this version of recmoe reads 1; fit it again"):
        FeatureEncoder.load(tmp_path)
