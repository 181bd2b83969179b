"""The tower on positions: its equation, its dropout, and that training alone knows of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from recmoe.config import config_from_dict
from recmoe.embeddings.tables import PlainTables
from recmoe.errors import ConfigError, DataError, SchemaError
from recmoe.experiment import ExperimentConfig
from recmoe.export.bundle import ModelBundle
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.label_values import encode_labels
from recmoe.features.labels import LabelColumn
from recmoe.features.schema import FeatureSchema
from recmoe.model import ModelConfig, TrainingModel, build_training_model
from recmoe.model.position import PositionBias, PositionConfig
from recmoe.ranking import Ranker, RankRequest
from recmoe.runs.train import RunResult
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet

Train = Callable[..., RunResult]

TASKS = TaskSet({"click": BinaryTaskConfig(label="click"), "buy": BinaryTaskConfig(label="buy")})
SCHEMA = FeatureSchema.model_validate({"width": 2, "features": {"item": {"kind": "id"}}})
POSITION = {"column": "slot", "num_positions": 3, "device": {"column": "screen", "levels": {"phone": 0, "web": 1}}}
LOG = pa.table(
    {
        "item": ["a", "b", "a", "b", "c"],
        "slot": [0, 1, 7, None, 2],
        "screen": ["web", "phone", None, "web", "web"],
        "click": [1, 0, 1, 0, 1],
        "buy": [1, 0, 0, 0, 1],
    }
)


def tower_of(*, hidden: tuple[int, ...] = (4,), dropout: float = 0.0, tasks: tuple[str, ...] | None = None) -> Any:
    torch.manual_seed(0)
    config = PositionConfig.model_validate({**POSITION, "hidden": hidden, "dropout": dropout, "tasks": tasks})
    tower = config.build(TASKS)
    for parameter in tower.parameters():
        parameter.data.normal_()
    return tower


def training_model(architecture: dict[str, Any], **position: Any) -> tuple[FeatureEncoder, TrainingModel]:
    config = ModelConfig.model_validate({"architecture": architecture, "position": {**POSITION, **position}})
    encoder = FeatureEncoder.fit(SCHEMA, [LOG], config.label_columns(TASKS))
    return encoder, build_training_model(
        layout=encoder.layout, tasks=TASKS, config=config, tables=lambda rows: PlainTables(rows, init_std=1.0)
    )


def bias_row(tower: PositionBias, position: float, device: float) -> Tensor:
    """tower(position, device), layer by layer; nothing for a position that is missing."""
    if np.isnan(position):
        return torch.zeros(2)
    h = tower.position_PW[min(int(position), 2)] + tower.bias_W
    if not np.isnan(device):
        h = h + tower.device_VW[int(device)]
    for layer in tower.layers:
        h = torch.relu(h) if isinstance(layer, torch.nn.ReLU) else layer.weight @ h + layer.bias
    return h


@pytest.mark.parametrize("hidden", [(), (4,), (4, 3)])
def test_bias_is_that_of_position_and_device_row_by_row(hidden: tuple[int, ...]) -> None:
    tower = tower_of(hidden=hidden)
    columns_BC = encode_labels(LOG, PositionConfig.model_validate(POSITION).label_columns)

    bias_BZ = tower(columns_BC)

    torch.testing.assert_close(bias_BZ, torch.stack([bias_row(tower, *row) for row in columns_BC.tolist()]))
    assert not bias_BZ[3].any()
    # Later positions count as the last, and here the device is missing.
    assert bias_BZ[2].any()


def test_share_of_positions_is_left_out_in_training_alone() -> None:
    tower = tower_of(dropout=0.25)
    columns_BC = torch.tensor([[1.0, 0.0]]).repeat(4000, 1)

    dropped_B = (tower.train()(columns_BC) == 0).all(dim=1)

    assert dropped_B.float().mean() == pytest.approx(0.25, abs=0.03)
    assert not (tower.eval()(columns_BC) == 0).any()


def test_bias_is_added_to_the_tasks_that_are_named() -> None:
    bias_BZ = tower_of(tasks=("buy",))(torch.tensor([[1.0, 0.0]]))

    assert bias_BZ[:, 0].tolist() == [0.0]
    assert bias_BZ[:, 1].any()


@pytest.mark.parametrize(
    "architecture",
    [{"kind": "shared_bottom", "hidden": [4]}, {"kind": "mmoe", "num_experts": 2, "expert_hidden": [4]}],
    ids=lambda architecture: architecture["kind"],
)
def test_loss_is_that_of_the_logits_where_the_rows_were_shown(architecture: dict[str, Any]) -> None:
    encoder, model = training_model(architecture, dropout=0.0)
    for parameter in model.parameters():
        parameter.data.normal_()
    batch = encoder.encode(LOG)

    _, losses_T = model(batch)

    logits_BZ = model.ranker(batch).logits_BZ
    rows = encode_labels(LOG, PositionConfig.model_validate(POSITION).label_columns).tolist()
    shown_BZ = logits_BZ + torch.stack([bias_row(model.position, *row) for row in rows])
    labels_BT = torch.tensor([LOG["click"].to_pylist(), LOG["buy"].to_pylist()]).t().float()
    expected_BT = torch.nn.functional.binary_cross_entropy_with_logits(shown_BZ, labels_BT, reduction="none")
    torch.testing.assert_close(losses_T, expected_BT.mean(dim=0).detach())


def test_ranker_reads_no_position_and_begins_as_it_would_without_one() -> None:
    encoder, model = training_model({"kind": "mmoe", "num_experts": 2, "expert_hidden": [4]})
    other_slots = LOG.set_column(1, "slot", [[2, 2, 0, 0, 0]])
    torch.manual_seed(0)
    without = build_training_model(
        layout=encoder.layout,
        tasks=TASKS,
        config=ModelConfig.model_validate({"architecture": {"kind": "mmoe", "num_experts": 2, "expert_hidden": [4]}}),
        tables=lambda rows: PlainTables(rows, init_std=1.0),
    )

    predictions_BT = model.ranker.predict(encoder.encode(LOG.drop_columns(["slot", "screen"]), with_labels=False))

    assert torch.equal(model.ranker.predict(encoder.encode(other_slots)), predictions_BT)
    assert torch.equal(without.ranker.predict(encoder.encode(LOG)), predictions_BT)
    assert model.ranker.state_dict().keys() == without.ranker.state_dict().keys()


def biased_log(path: Path) -> Path:
    """Clicks hang on the item and, far more, on the slot; an old ranker put the good items of the log last."""
    random = np.random.default_rng(0)
    item = random.integers(0, 6, 4000)
    slot = np.clip(item + random.integers(-2, 3, 4000), 0, 5)
    odds = 1.0 * item - 2.0 * slot + 2.5
    click = (random.random(4000) < 1 / (1 + np.exp(-odds))).astype(int)
    rows = {"item": [f"i{index}" for index in item], "slot": slot, "click": click}
    pq.write_table(pa.table(rows), path)
    return path


def experiment(folder: Path, *overrides: str) -> ExperimentConfig:
    values = {
        "name": "slots",
        "data": {"train": str(biased_log(folder / "train.parquet"))},
        "inputs": {"width": 4, "item": "item", "features": {"item": {"kind": "id"}}},
        "tasks": {"ctr": {"kind": "binary", "label": "click"}},
        "model": {"architecture": {"kind": "shared_bottom", "hidden": [8]}, "towers": {"hidden": []}},
        "tables": {"backend": "plain", "optimizer": {"kind": "rowwise_adagrad", "lr": 0.1}},
        "training": {
            "batch_size": 100,
            "epochs": 6,
            "device": "cpu",
            "precision": "fp32",
            "dense_optimizer": {"kind": "adamw", "lr": 0.02},
        },
        "tracking": {"kind": "none"},
    }
    return config_from_dict(ExperimentConfig, values, overrides=overrides)


def served_order(run: RunResult) -> list[str]:
    """Items as they are ranked, the best first, by requests that know nothing of slots."""
    ranker = Ranker.load(run.folder.root / "bundle")
    candidates = [{"item": f"i{index}"} for index in range(6)]
    response = ranker.rank(RankRequest.parse({"user": {}, "context": {}, "candidates": candidates}))
    return [str(item.item_id) for item in response.items]


def test_items_are_ranked_by_what_they_are_worth_and_not_by_where_they_stood(train: Train, tmp_path: Path) -> None:
    slot = "model.position={column: slot, num_positions: 6}"

    debiased = served_order(train(experiment(tmp_path, slot), tmp_path / "debiased"))
    biased = served_order(train(experiment(tmp_path), tmp_path / "biased"))

    assert debiased == ["i5", "i4", "i3", "i2", "i1", "i0"]
    assert biased == debiased[::-1]


def test_bundle_holds_nothing_of_the_tower_and_predicts_what_the_model_without_it_does(
    train: Train, tmp_path: Path
) -> None:
    config = experiment(tmp_path, "model.position={column: slot}", "training.max_steps=10", "training.epochs=1")

    run = train(config, tmp_path / "run")

    bundle = ModelBundle.load(run.folder.root / "bundle")
    assert not any("position" in name for name in bundle.model.state_dict())
    assert "slot" not in bundle.replay.rows.column_names
    rows = pa.table({"item": ["i0", "i3", "new"]})
    batch = bundle.encoder.encode(rows, with_labels=False)
    np.testing.assert_array_equal(bundle.predict(rows), bundle.model.predict(batch).detach().numpy())


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (-1, r"label column 'slot' holds -1.0 in row 1; a position is a whole number, 0 or more, or null: mend it"),
        (0.5, r"label column 'slot' holds 0.5 in row 1; a position is a whole number, 0 or more, or null: mend it"),
    ],
)
def test_position_that_is_none_is_an_error(value: float, error: str) -> None:
    rows = pa.table({"slot": [1.0, value]})

    with pytest.raises(DataError, match=error):
        encode_labels(rows, [LabelColumn("slot", is_binary=False, use="position")])


def test_missing_column_says_what_needs_it() -> None:
    with pytest.raises(SchemaError, match=r"column 'slot' is missing, needed by model.position, as the position"):
        encode_labels(LOG.drop_columns(["slot"]), PositionConfig.model_validate(POSITION).label_columns)
    with pytest.raises(SchemaError, match=r"column 'screen' is missing, needed by model.position, as the device"):
        encode_labels(LOG.drop_columns(["screen"]), PositionConfig.model_validate(POSITION).label_columns)


@pytest.mark.parametrize(
    ("override", "error"),
    [
        (
            "inputs.features.slot={kind: numeric}",
            "inputs.features.slot: column slot is where the log showed a row, which no request knows; model.position "
            "reads it in training, and no feature may",
        ),
        (
            "model.position.tasks=[cvr]",
            "model.position.tasks: no such task with a tower: cvr; there are: ctr",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_with_its_key(override: str, error: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        experiment(tmp_path, "model.position={column: slot}", override)

    assert error in str(raised.value)
