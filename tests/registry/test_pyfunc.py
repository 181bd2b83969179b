"""A registered version scores through MLflow as the ranker does."""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recmoe.errors import BundleError, SchemaError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
from recmoe.registry.registry import Registry

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]


@pytest.fixture
def champion(registry: Registry, bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow.pyfunc.PyFuncModel:
    registry.register(bundle_path)
    registry.promote("shop", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    return mlflow.pyfunc.load_model("models:/shop@champion")


def test_champion_scores_a_frame_as_the_ranker_does(
    champion: mlflow.pyfunc.PyFuncModel, bundle: ModelBundle, shop_log: pa.Table
) -> None:
    frame = shop_log.to_pandas()
    ranker = Ranker(bundle)

    predictions = champion.predict(frame)
    by_ctr = champion.predict(frame, params={"score": "ctr"})

    expected_NT = ranker.score(shop_log)
    assert list(predictions.columns) == ["ctr", "cvr", "ctcvr", "score"]
    np.testing.assert_allclose(predictions[["ctr", "cvr", "ctcvr"]], expected_NT, atol=1e-6)
    np.testing.assert_allclose(predictions["score"], ranker.combine(expected_NT), atol=1e-6)
    np.testing.assert_allclose(by_ctr["score"], expected_NT[:, 0], atol=1e-6)


def test_version_has_signature_and_example(champion: mlflow.pyfunc.PyFuncModel) -> None:
    signature = champion.metadata.signature

    assert signature.inputs.input_names() == ["user_id", "tags", "age", "hour", "item_id", "words", "price"]
    assert signature.outputs.input_names() == ["ctr", "cvr", "ctcvr", "score"]
    assert len(champion.input_example) == 3


def test_example_scores_as_a_caller_would_send_it(champion: mlflow.pyfunc.PyFuncModel, bundle: ModelBundle) -> None:
    predictions = champion.predict(champion.input_example)

    np.testing.assert_allclose(predictions["ctr"], bundle.replay.predictions_NT[:3, 0], atol=1e-5)


def test_columns_may_be_of_other_types_and_partly_missing(champion: mlflow.pyfunc.PyFuncModel) -> None:
    frame = pd.DataFrame(
        {
            "user_id": ["u1", None],
            "tags": [["red"], None],
            "age": [30, None],
            "hour": [1, 2],
            "item_id": ["101", "102"],
            "words": [None, None],
            "price": [1, 2],
        }
    )

    predictions = champion.predict(frame)

    assert np.isfinite(predictions.to_numpy()).all()


@pytest.mark.parametrize(
    "rows",
    [
        pd.DataFrame({"user": ["u1"], "item": [101]}),
        pd.DataFrame({"user_id": ["u1"], "item_id": [101]}),
        np.zeros((3, 7)),
    ],
)
def test_columns_that_are_not_the_models_are_an_error_that_names_them(
    champion: mlflow.pyfunc.PyFuncModel, rows: object
) -> None:
    with pytest.raises(
        SchemaError,
        match=r"columns are missing: .*tags, age, hour, .*; give a DataFrame with the columns user_id, tags, age, "
        r"hour, item_id, words, price, named so",
    ):
        champion.predict(rows)


def test_task_called_score_keeps_its_prediction(
    registry: Registry, score_bundle_path: Path, shop_log: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register(score_bundle_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)

    model = mlflow.pyfunc.load_model("models:/shop/1")
    predictions = model.predict(shop_log.to_pandas())

    assert list(predictions.columns) == ["click", "score", "ranking_score"]
    assert model.metadata.signature.outputs.input_names() == ["click", "score", "ranking_score"]
    np.testing.assert_allclose(predictions["ranking_score"], predictions["click"] * predictions["score"], rtol=1e-5)


def test_bundle_that_was_tampered_with_is_refused_by_mlflow_too(
    registry: Registry, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register(bundle_path)
    folder = registry.resolve("models:/shop/1", cache=tmp_path).path
    (folder / "encoder" / "model.pkl").write_bytes(b"")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)

    with pytest.raises(BundleError, match=r"encoder/model\.pkl is not listed in manifest\.json; remove it"):
        mlflow.pyfunc.load_model("models:/shop/1")
