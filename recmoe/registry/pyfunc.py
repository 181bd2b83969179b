"""The MLflow flavour of a bundle: loaded by name of this module, without pickle, scored by the Ranker itself.

``mlflow.pyfunc.load_model("models:/NAME@champion").predict(df)`` takes rows with the raw columns of all
sides and gives one column of predictions per task, and ``score`` (``ranking_score`` if a task is called that).
A version that travels as a delta is made whole from the registry that MLflow uses.
"""

# N rows

import importlib.metadata
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pyarrow as pa
from mlflow.models import ModelSignature
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, Array, ColSpec

from recmoe.errors import SchemaError
from recmoe.export.delta import DELTA, Delta
from recmoe.plugins import packages_of
from recmoe.ranking.prediction_columns import score_column
from recmoe.ranking.ranker import Ranker
from recmoe.registry.artifacts import Artifacts
from recmoe.tracking.mlflow_store import MlflowStore, answering

_REQUIRED = ("numpy", "pandas", "pyarrow", "pydantic", "safetensors", "torch")


class BundleModel:
    """What MLflow calls a Python function.

    Args:
        ranker: has passed its replay.
    """

    def __init__(self, ranker: Ranker) -> None:
        self.ranker = ranker

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predictions by task and the score, for each row.

        Args:
            model_input: raw columns; None and NaN are missing values.
            params: ``score`` names a formula; the default one otherwise.

        Raises:
            SchemaError: a column is missing, named differently, or of another type; or there are no named columns.
        """
        _check_columns(model_input, self.ranker)
        rows = pa.Table.from_pandas(model_input, preserve_index=False)
        predictions_NT = self.ranker.score(rows)
        frame = pd.DataFrame(predictions_NT, columns=list(self.ranker.task_names), index=model_input.index)
        frame[score_column(self.ranker.task_names)] = self.ranker.combine(
            predictions_NT, score=(params or {}).get("score") or None
        )
        return frame


def _check_columns(model_input: Any, ranker: Ranker) -> None:
    # MLflow drops columns that the signature does not have, and makes numbered ones of an array.
    expected = list(dict.fromkeys(ranker.bundle.encoder.columns(with_labels=False)))
    found = list(model_input.columns) if isinstance(model_input, pd.DataFrame) else []
    missing = [name for name in expected if name not in found]
    if missing:
        raise SchemaError(
            f"columns are missing: {', '.join(missing)}; give a DataFrame with the columns {', '.join(expected)}, "
            f"named so (None where a value is not known), got {', '.join(map(str, found)) or 'none of them'}"
        )


def _load_pyfunc(path: str) -> BundleModel:
    """MLflow's entry: the folder holds a bundle or a delta of one, which is replayed before anything is scored."""
    folder = Path(path)
    if not (folder / DELTA).exists():
        return BundleModel(Ranker.load(folder))
    store = MlflowStore.connect(mlflow.get_registry_uri(), folder=Path())
    # Tables are mapped: they outlive the folder.
    with tempfile.TemporaryDirectory() as cache, answering(store.uri):
        artifacts = Artifacts(store, cache=Path(cache))
        return BundleModel(Ranker.load(artifacts.applied(Delta.read(folder), Path(cache) / "bundle")))


def signature(ranker: Ranker) -> ModelSignature:
    """Columns in and out. Ids are of any type, for the encoder takes 7 and "7" for the same id."""
    encoder = ranker.bundle.encoder
    types = {
        column.name: Array(AnyType()) if column.is_list else AnyType() for _, column in encoder.schema.raw_columns()
    }
    inputs = [ColSpec(type_, name, required=False) for name, type_ in types.items()]
    outputs = [ColSpec(DataType.float, task) for task in ranker.task_names]
    return ModelSignature(
        inputs=Schema(inputs),
        outputs=Schema([*outputs, ColSpec(DataType.double, score_column(ranker.task_names))]),
        params=ParamSchema([ParamSpec("score", DataType.string, "")]),
    )


def input_example(ranker: Ranker, *, num_rows: int = 3) -> pd.DataFrame:
    """A few rows of the replay, as a caller would send them."""
    rows: pd.DataFrame = ranker.bundle.replay.rows.slice(0, num_rows).to_pandas()
    return rows


def requirements(ranker: Ranker) -> list[str]:
    """The packages that loading needs, in the versions that are installed."""
    needed = {name: importlib.metadata.version(name) for name in _REQUIRED} | packages_of(ranker.bundle.config)
    return [f"{name}=={version.partition('+')[0]}" for name, version in needed.items()]
