"""A replay names the first feature or task that differs."""

import numpy as np
import pyarrow as pa
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
