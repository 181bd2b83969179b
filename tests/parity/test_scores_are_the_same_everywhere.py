"""One model, five ways to its scores: the model in training, the API, `recmoe rank`, mlflow.pyfunc and the notebook.

The real data sets are used where RECMOE_DATA names the folder that holds census_income_kdd, hillstrom and
trivago_recsys19.
"""

# N rows, C candidates of a request, T tasks

import itertools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from pipelines.demo_request import post, server
from recmoe.cli import app
from recmoe.data.datasets import import_dataset
from recmoe.data.synthetic import write_synthetic
from recmoe.experiment import ExperimentConfig, load_experiment
from recmoe.export.bundle import ModelBundle
from recmoe.ranking.example import requests_of_rows
from recmoe.registry.registry import Registry
from recmoe.runs.train import train_run
from tests.notebooks.scoring import scored_by_the_notebook

pytestmark = [
    pytest.mark.slow,
    # MLflow's own code, at first use.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),
]

Floats = NDArray[np.float64]
Request = dict[str, Any]

TOLERANCE = 1e-5
"""Largest difference of a prediction; relative for predictions beyond ±1, which float32 cannot hold to five digits."""
NUM_CLI_REQUESTS = 5
SOURCES = {"census": "census_income_kdd", "hillstrom": "hillstrom", "trivago": "trivago_recsys19"}
QUICK = (
    "training.max_steps=60",
    "training.batch_size=256",
    "training.early_stopping=null",
    "tables.backend=torchrec",
    "evaluation.num_resamples=0",
    "evaluation.baselines=[]",
    "evaluation.slices=[]",
    "tracking={kind: none}",
)


def log_of(data: str, folder: Path) -> Path:
    """The config of a data set that was written to a folder."""
    if data == "synthetic":
        return write_synthetic(folder, num_rows=5000).config
    root = os.environ.get("RECMOE_DATA")
    if root is None or not (Path(root) / SOURCES[data]).exists():
        pytest.skip(f"RECMOE_DATA names no folder with {SOURCES[data]}")
    return import_dataset(data, Path(root) / SOURCES[data], folder)


def rows_of_replay(config: ExperimentConfig, bundle: ModelBundle, folder: Path) -> pa.Table:
    """The rows that the training model scored for the bundle, with all their columns."""
    num_rows = bundle.replay.rows.num_rows
    rows = next(iter(config.data.build("test", seed=0, cache_dir=folder).chunks(batch_size=num_rows)))
    assert rows.select(bundle.replay.rows.column_names).equals(bundle.replay.rows)
    return rows


def in_order_of_rows(items: Sequence[dict[str, Any]], request: Request, expected_CT: Floats, item: str) -> Floats:
    """Predictions of ranked items, put back in the order of the candidates.

    An item may stand in a list twice; its places are then told apart by the predictions themselves.
    """
    left = list(range(len(items)))
    found_CT = np.full(expected_CT.shape, np.nan)
    for ranked in items:
        predictions_T = np.array(list(ranked["tasks"].values()))
        same = [place for place in left if str(request["candidates"][place][item]) == str(ranked["item_id"])]
        place = min(same, key=lambda place: float(np.abs(expected_CT[place] - predictions_T).max()))
        left.remove(place)
        found_CT[place] = predictions_T
    assert not left
    return found_CT


def differences(
    requests: Sequence[Request], expected_NT: Floats, item: str, rank: Callable[[Request], dict[str, Any]]
) -> Floats:
    """Largest difference of each task over the candidates of the requests, from the training model's predictions."""
    ends = np.cumsum([len(request["candidates"]) for request in requests])
    parts = np.split(expected_NT, ends)[: len(requests)]
    found = [
        in_order_of_rows(rank(request)["items"], request, expected_CT, item)
        for request, expected_CT in zip(requests, parts, strict=True)
    ]
    return largest(np.concatenate(found), np.concatenate(parts))


def largest(found_NT: Floats, expected_NT: Floats) -> Floats:
    difference_T: Floats = (np.abs(found_NT - expected_NT) / np.maximum(1.0, np.abs(expected_NT))).max(axis=0)
    return difference_T


def rank_by_command(request: Request, model: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["rank", "-", "--model", model, "--json"], input=json.dumps(request))
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


@pytest.fixture
def champion(
    request: pytest.FixtureRequest, mlflow_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[ExperimentConfig, ModelBundle, str]:
    """Config, bundle and name of a model that was trained with sharded tables and registered as champion."""
    config = load_experiment(log_of(request.param, mlflow_folder.parent / "log"), QUICK)
    result = train_run(config, mlflow_folder / "run", resume=False, is_quiet=True)
    registry = Registry.connect(folder=mlflow_folder)
    registry.register(result.folder.bundle, name=request.param)
    registry.promote(request.param, "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    monkeypatch.setenv("RECMOE_MODEL", f"models:/{request.param}@champion")
    monkeypatch.setenv("RECMOE_RUNS", str(mlflow_folder))
    return config, ModelBundle.load(result.folder.bundle), f"models:/{request.param}@champion"


@pytest.mark.parametrize("champion", ["synthetic", *SOURCES], indirect=True)
def test_scores_are_the_same_everywhere(
    champion: tuple[ExperimentConfig, ModelBundle, str], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    config, bundle, model = champion
    rows = rows_of_replay(config, bundle, tmp_path)
    expected_NT = bundle.replay.predictions_NT
    item = str(config.inputs.item)
    requests = list(requests_of_rows(config.inputs, rows))
    few = list(itertools.islice(requests, NUM_CLI_REQUESTS))
    tasks = list(bundle.tasks.names)

    with server(model) as address:
        found = {
            "POST /v1/rank": differences(
                requests, expected_NT, item, lambda request: post(f"{address}/v1/rank", request)
            )
        }
    found["recmoe rank"] = differences(few, expected_NT, item, lambda request: rank_by_command(request, model))
    predicted = mlflow.pyfunc.load_model(model).predict(rows.to_pandas())
    found["mlflow.pyfunc"] = largest(predicted[tasks].to_numpy(np.float64), expected_NT)
    scored = scored_by_the_notebook()
    assert list(scored.task_names) == tasks
    found["notebook"] = largest(scored.predictions_NT[: len(expected_NT)].astype(np.float64), expected_NT)

    assert expected_NT[:, 0].std() > 1e-3
    for path, difference_T in found.items():
        record_property(path, dict(zip(tasks, difference_T.tolist(), strict=True)))
        print(f"{config.name}: {path} differs by at most {difference_T.max():.1e}")
    assert {path: difference_T.max() < TOLERANCE for path, difference_T in found.items()} == dict.fromkeys(found, True)
