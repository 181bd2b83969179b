"""The scores of requests with histories equal those of the model in training, for every encoder."""

import typing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from recmoe.embeddings.tables import PlainTables
from recmoe.export.bundle import write_bundle
from recmoe.export.replay import Replay
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.schema import FeatureSchema
from recmoe.model import ModelConfig, build_model
from recmoe.ranking import Ranker, RankRequest
from recmoe.sequence import HistoryEncoderConfig
from recmoe.tasks import TaskConfig
from recmoe.tasks.funnel import TaskSet

KINDS = [member.model_fields["kind"].default for member in typing.get_args(typing.get_args(HistoryEncoderConfig)[0])]
HISTORIES: list[list[int] | None] = [[101, 102, 103, 104], [], [129], None, [110, 110]]


def history(kind: str) -> dict[str, Any]:
    return {
        "kind": "sequence",
        "columns": {"item": {"column": "seen", "table": "item_id"}, "action": {"column": "done"}},
        "time": "seen_at",
        "now": "now",
        "max_length": 3,
        "encoder": {"kind": kind},
    }


def with_histories(log: pa.Table) -> pa.Table:
    """Five visits' histories in turn; every row of a visit has the same."""
    turns = [visit % len(HISTORIES) for visit in log["visit"].to_pylist()]
    seen = [HISTORIES[turn] for turn in turns]
    actions = [None if items is None else ["look", "buy", "look", "buy"][: len(items)] for items in seen]
    times = [None if items is None else [10.0 * place for place, _ in enumerate(items)] for items in seen]
    log = log.append_column("seen", pa.array(seen, pa.list_(pa.int64())))
    log = log.append_column("done", pa.array(actions, pa.list_(pa.string())))
    log = log.append_column("seen_at", pa.array(times, pa.list_(pa.float64())))
    return log.append_column("now", pa.array([1000.0 + turn for turn in turns]))


def request_of(rows: pa.Table, schema: FeatureSchema) -> RankRequest:
    """All rows of a visit as one request: what describes user and context is that of the first row."""
    sides: dict[str, list[str]] = {"user": [], "context": [], "item": []}
    for name, column in schema.raw_columns():
        sides[schema.features[name].side].append(column.name)
    first, *_ = listed = rows.to_pylist()
    return RankRequest.parse(
        {
            "user": {name: first[name] for name in sides["user"]},
            "context": {name: first[name] for name in sides["context"]},
            "candidates": [{name: row[name] for name in (*sides["item"], "item_id")} for row in listed],
        }
    )


@pytest.mark.parametrize("kind", KINDS)
def test_histories_are_served_as_trained(
    kind: str, shop_log: pa.Table, shop_config: dict[str, Any], tmp_path: Path
) -> None:
    log = with_histories(shop_log).slice(0, 100)
    features = {**shop_config["inputs"]["features"], "history": history(kind)}
    config = {**shop_config, "inputs": {**shop_config["inputs"], "features": features}}
    schema = FeatureSchema.model_validate(config["inputs"])
    # A request has one user and one hour.
    for column in ("user_id", "tags", "age", "hour"):
        first_of_visit = [row // 5 * 5 for row in range(log.num_rows)]
        log = log.set_column(log.column_names.index(column), column, log[column].take(pa.array(first_of_visit)))
    tasks = TaskSet(TypeAdapter(dict[str, TaskConfig]).validate_python(config["tasks"]))
    encoder = FeatureEncoder.fit(schema, [log], tasks.label_columns)
    torch.manual_seed(0)
    model = build_model(
        layout=encoder.layout,
        tasks=tasks,
        config=ModelConfig.model_validate(config["model"]),
        tables=lambda layout: PlainTables(layout, seed=0, init_std=1.0),
    ).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    with torch.inference_mode():
        trained_NT = model.predict(encoder.encode(log)).numpy()
        without = log.set_column(log.column_names.index("seen"), "seen", pa.array([[]] * 100, pa.list_(pa.int64())))
        for column, type_ in (("done", pa.string()), ("seen_at", pa.float64())):
            place = without.column_names.index(column)
            without = without.set_column(place, column, pa.array([[]] * 100, pa.list_(type_)))
        without_NT = model.predict(encoder.encode(without)).numpy()
    replay = Replay.capture(log.slice(0, 32), encoder=encoder, task_names=tasks.names, predictions_NT=trained_NT[:32])
    write_bundle(tmp_path / "b", name="shop", config=config, encoder=encoder, model=model, replay=replay)

    ranker = Ranker.load(tmp_path / "b")
    responses = ranker.rank_many([request_of(log.slice(5 * visit, 5), schema) for visit in range(20)])

    has_history = np.repeat([bool(HISTORIES[visit % 5]) for visit in range(20)], 5)
    assert (np.abs(trained_NT - without_NT).max(axis=1) > 1e-6).tolist() == has_history.tolist()
    for visit, response in enumerate(responses):
        # Items come back in the order of their scores.
        served = sorted(list(item.tasks.values()) for item in response.items)
        np.testing.assert_allclose(served, sorted(trained_NT[5 * visit : 5 * visit + 5].tolist()), atol=1e-5, rtol=0)
    np.testing.assert_allclose(ranker.score(log), trained_NT, atol=1e-5, rtol=0)
    # What is explained is what is served; a history that is empty or missing moves nothing.
    for explained, trained_T, has in zip(ranker.explainer.of_rows(log), trained_NT, has_history, strict=True):
        for task, trained in zip(explained.tasks.values(), trained_T.tolist(), strict=True):
            assert 1 / (1 + np.exp(-task.predicted)) == pytest.approx(trained, abs=1e-5)
        moved = [one.value for task in explained.tasks.values() for one in task.features if one.feature == "history"]
        assert (max(map(abs, moved)) > 1e-6) == has
