"""A replay names the first feature or task that differs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recmoe.errors import BundleError
from recmoe.export.bundle import ModelBundle
from recmoe.export.replay import Replay
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.schema import FeatureSchema


def changed(replay: Replay, name: str, value: torch.Tensor) -> Replay:
    return Replay(replay.rows, replay.task_names, replay.predictions_NT, {**replay.encoded, name: value})


def test_replay_of_the_same_model_passes(bundle: ModelBundle) -> None:
    bundle.check_replay()


def test_number_that_is_encoded_differently_is_named(bundle: ModelBundle) -> None:
    columns = [column.feature for column in bundle.encoder.layout.dense]
    dense = bundle.replay.encoded["dense"].clone()
    dense[7, columns.index("hour")] += 0.5
    batch = bundle.encoder.encode(bundle.replay.rows, with_labels=False)

    with pytest.raises(
        BundleError, match="replay: feature hour is encoded differently than in training: hour of row 7"
    ):
        changed(bundle.replay, "dense", dense).check_features(batch, bundle.encoder.layout)


def test_id_that_is_encoded_differently_is_named(bundle: ModelBundle) -> None:
    layout = bundle.encoder.layout
    keys = [key.name for key in layout.sparse]
    start = int(bundle.replay.encoded["lengths"][: keys.index("item_id")].sum())
    values = bundle.replay.encoded["values"].clone()
    values[start + 3] += 1
    batch = bundle.encoder.encode(bundle.replay.rows, with_labels=False)

    with pytest.raises(
        BundleError, match=r"replay: feature item_id is encoded differently .*: other rows of table item_id"
    ):
        changed(bundle.replay, "values", values).check_features(batch, layout)


def test_ages_that_are_encoded_differently_are_named() -> None:
    history = {"kind": "sequence", "columns": {"item": {"column": "seen"}}, "time": "seen_at"}
    rows = pa.table({"seen": [["a", "b"], []], "seen_at": [[1.0, 4.0], []]})
    encoder = FeatureEncoder.fit(FeatureSchema.model_validate({"features": {"history": history}}), [rows])
    replay = Replay.capture(rows, encoder=encoder, task_names=["ctr"], predictions_NT=np.zeros((2, 1)))
    batch = encoder.encode(rows, with_labels=False)

    replay.check_features(batch, encoder.layout)
    with pytest.raises(BundleError, match=r"replay: feature history is encoded differently than in .*: other ages"):
        changed(replay, "ages", replay.encoded["ages"] + 1).check_features(batch, encoder.layout)


def test_prediction_that_is_no_number_does_not_pass(bundle: ModelBundle) -> None:
    predictions_NT = bundle.replay.predictions_NT.copy()
    predictions_NT[2, 0] = float("nan")

    with pytest.raises(BundleError, match=r"replay: task ctr differs .*: row 2 gives nan"):
        bundle.replay.check_predictions(predictions_NT)


def test_tolerance_is_relative_for_large_values() -> None:
    replay = Replay(pa.table({"a": [1]}), ("spend",), torch.tensor([[2000.0]]).double().numpy(), {})

    replay.check_predictions(torch.tensor([[2000.01]]).numpy())
    with pytest.raises(BundleError, match="task spend differs"):
        replay.check_predictions(torch.tensor([[2000.1]]).numpy())


def rows_of(replay: Replay, num_rows: int) -> Replay:
    lengths = replay.encoded["lengths"][:, :num_rows]
    values = [
        ids[: int(of_key.sum())]
        for ids, of_key in zip(
            torch.split(replay.encoded["values"], replay.encoded["lengths"].sum(1).tolist()), lengths, strict=True
        )
    ]
    encoded = {
        "dense": replay.encoded["dense"][:num_rows].contiguous(),
        "lengths": lengths.contiguous(),
        "values": torch.cat(values),
    }
    return Replay(replay.rows.slice(0, num_rows), replay.task_names, replay.predictions_NT[:num_rows], encoded)


def test_rows_of_a_replay_come_back(bundle: ModelBundle, tmp_path: Path) -> None:
    rows_of(bundle.replay, 3).save(tmp_path)

    loaded = Replay.load(tmp_path)

    assert loaded.rows.equals(bundle.replay.rows.slice(0, 3))
    np.testing.assert_array_equal(loaded.predictions_NT, bundle.replay.predictions_NT[:3])


def test_columns_of_a_replay_are_not_those_of_the_folders_around_it(bundle: ModelBundle, tmp_path: Path) -> None:
    folder = tmp_path / "hour=7"
    folder.mkdir()
    bundle.replay.save(folder)

    assert Replay.load(folder).rows.equals(bundle.replay.rows)


def test_replay_of_no_rows_is_neither_written_nor_read(bundle: ModelBundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="the replay has no rows, and proves nothing; give it some rows of the log"):
        Replay.capture(
            bundle.replay.rows.slice(0, 0),
            encoder=bundle.encoder,
            task_names=["ctr"],
            predictions_NT=np.zeros((0, 1)),
        )
    rows_of(bundle.replay, 0).save(tmp_path)

    with pytest.raises(BundleError, match=r"replay\.parquet has no rows, and proves nothing; export it again"):
        Replay.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "limit", "message"),
    [
        ("MAX_ROWS", 39, r"replay\.parquet has 40 rows, and may have 39; export it again"),
        ("MAX_BYTES", 99, r"replay\.parquet: it takes [\d,]+ bytes in memory, and may take 99"),
    ],
)
def test_replay_that_is_too_long_or_takes_too_much_memory_is_refused(
    bundle: ModelBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: int, message: str
) -> None:
    bundle.replay.save(tmp_path)
    monkeypatch.setattr(f"recmoe.export.replay.{name}", limit)

    with pytest.raises(BundleError, match=message):
        Replay.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dense": torch.zeros(40, 3).double()}, "its encoded rows are not dense, lengths, values"),
        ({"more": torch.zeros(1)}, "its encoded rows are not dense, lengths, values"),
        ({"lengths": torch.full((7, 40), -1, dtype=torch.int32)}, "the lengths of its encoded rows do not sum to"),
        ({"values": torch.zeros(0, dtype=torch.int64)}, "the lengths of its encoded rows do not sum to"),
        ({"dense": torch.zeros(39, 3)}, "its parts have 39, 40 rows"),
    ],
)
def test_parts_of_a_replay_that_do_not_fit_are_refused(
    bundle: ModelBundle, tmp_path: Path, changes: dict[str, torch.Tensor], message: str
) -> None:
    replay = bundle.replay
    Replay(replay.rows, replay.task_names, replay.predictions_NT, {**replay.encoded, **changes}).save(tmp_path)

    with pytest.raises(BundleError, match=f"its replay cannot be read: {message}"):
        Replay.load(tmp_path)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (pa.table({"ctr": [1] * 40}), r"its predictions are of types \[.*int64.*\], not floats"),
        (pa.table({"ctr": [0.5] * 41}), "its parts have 40, 41 rows"),
        (pa.table([[0.5] * 40] * 2, names=["ctr", "ctr"]), "two of its columns have the same name: ctr, ctr"),
    ],
)
def test_predictions_of_a_replay_that_are_none_are_refused(
    bundle: ModelBundle, tmp_path: Path, scores: pa.Table, message: str
) -> None:
    bundle.replay.save(tmp_path)
    pq.write_table(scores, tmp_path / "replay_scores.parquet")

    with pytest.raises(BundleError, match=f"its replay cannot be read: {message}"):
        Replay.load(tmp_path)


def test_rows_encoded_for_other_features_are_refused(bundle: ModelBundle) -> None:
    batch = bundle.encoder.encode(bundle.replay.rows, with_labels=False)

    with pytest.raises(
        BundleError, match=r"replay: its encoded rows are of other features than the model's \(dense of"
    ):
        changed(bundle.replay, "dense", torch.zeros(40, 2)).check_features(batch, bundle.encoder.layout)


def test_rows_that_cannot_be_encoded_are_refused(bundle: ModelBundle) -> None:
    lacking = replace(bundle, replay=replace(bundle.replay, rows=bundle.replay.rows.drop_columns(["hour"])))

    with pytest.raises(BundleError, match="replay: its rows cannot be encoded: column 'hour' is missing"):
        lacking.check_replay()
