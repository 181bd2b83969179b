"""A fresh model predicts base rates, and losses of regressions are measured in their labels' variance."""

import math

import pyarrow as pa
import pytest
import torch
from torch import Tensor

from recmoe.balancing.weightings import FixedWeightingConfig
from recmoe.embeddings.tables import PlainTables
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.schema import FeatureSchema
from recmoe.model import ModelConfig, TrainingModel, build_model
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet
from recmoe.tasks.product import ProductTaskConfig
from recmoe.tasks.regression import RegressionTaskConfig

NUM_ROWS = 40
CLICKS = [int(i % 4 == 0) for i in range(NUM_ROWS)]
BUYS = [int(i % 20 == 0) for i in range(NUM_ROWS)]
SECONDS = [float(3 * i % 17) if click else None for i, click in enumerate(CLICKS)]
SCHEMA = FeatureSchema.model_validate(
    {"width": 4, "features": {"user": {"kind": "id", "side": "user"}, "age": {"kind": "numeric", "side": "user"}}}
)
TASKS = TaskSet(
    {
        "ctr": BinaryTaskConfig(label="click"),
        "watch": RegressionTaskConfig(label="seconds", space="click"),
        "cvr": BinaryTaskConfig(label="buy", space="click"),
        "ctcvr": ProductTaskConfig(of=("ctr", "cvr")),
    }
)


def log(scale: float = 1.0) -> pa.Table:
    return pa.table(
        {
            "user": [f"u{i % 7}" for i in range(NUM_ROWS)],
            "age": [float(i * 5 % 23) for i in range(NUM_ROWS)],
            "click": CLICKS,
            "buy": BUYS,
            "seconds": [None if seconds is None else seconds * scale for seconds in SECONDS],
        }
    )


def fresh(rows: pa.Table, *, gate: str = "softmax") -> tuple[FeatureEncoder, TrainingModel]:
    """A model that knows of the rows where its tasks begin, and nothing else."""
    encoder = FeatureEncoder.fit(SCHEMA, [rows], TASKS.label_columns)
    torch.manual_seed(1)
    config = ModelConfig.model_validate(
        {
            "architecture": {"kind": "mmoe", "num_experts": 2, "expert_hidden": [6], "gate": {"kind": gate}},
            "towers": {"hidden": [4]},
            "wide": {"kind": "linear", "rate": 5},
        }
    )
    ranker = build_model(layout=encoder.layout, tasks=TASKS, config=config, tables=PlainTables)
    ranker.begin(TASKS.starts(TASKS.label_sums(encoder.encode_labels(rows))))
    weighting = FixedWeightingConfig().build(weights=[1.0] * 4, outputs=["binary", "regression", "binary", "binary"])
    return encoder, TrainingModel(ranker=ranker, weighting=weighting)


def test_fresh_model_predicts_the_base_rate_of_every_task_in_every_row() -> None:
    encoder, model = fresh(log())
    unseen = pa.table({"user": ["nobody", "u3"], "age": [99.0, None]})

    with torch.no_grad():
        known_BT = model.ranker.predict(encoder.encode(log(), with_labels=False))
        unseen_BT = model.ranker.predict(encoder.encode(unseen, with_labels=False))

    # Ten clicks of forty rows, two purchases and all seconds in them; with half a row of each kind beside.
    watched = [seconds for seconds in SECONDS if seconds is not None]
    ctr, cvr = 10.5 / 41, 2.5 / 11
    expected = torch.tensor([ctr, sum(watched) / len(watched), cvr, ctr * cvr])
    torch.testing.assert_close(known_BT, expected.expand(NUM_ROWS, 4), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(unseen_BT, expected.expand(2, 4), rtol=1e-5, atol=1e-6)


def test_losses_are_added_in_units_of_the_labels_spread() -> None:
    encoder, model = fresh(log())

    loss, losses_T = model(encoder.encode(log()))

    watched = torch.tensor([seconds for seconds in SECONDS if seconds is not None])
    variance = float(watched.var(correction=0))
    # The mean predicts them with an error of the variance, in the quarter of rows that were clicked.
    assert float(losses_T[1]) == pytest.approx(variance * 10 / NUM_ROWS, rel=1e-5)
    assert float(loss.detach()) == pytest.approx(float(losses_T.sum()) - float(losses_T[1]) + 0.25, rel=1e-5)
    torch.testing.assert_close(model.ranker.loss_units(), torch.tensor([1.0, variance, 1.0, 1.0]))


def trained(scale: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Predictions and weights after ten steps."""
    rows = log(scale)
    encoder, model = fresh(rows)
    # Plain parameters: what is compared is the gradient.
    model.train()
    model.ranker.input_layer.tables.eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03)
    for _ in range(10):
        optimizer.zero_grad()
        loss, _losses = model(encoder.encode(rows))
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return model.ranker.predict(encoder.encode(rows, with_labels=False)), dict(model.named_parameters())


def test_scale_of_a_regression_changes_nothing_for_its_neighbours() -> None:
    predictions, weights = trained(1.0)

    scaled_predictions, scaled_weights = trained(1000.0)

    assert predictions[:, 0].std() > 0.01
    torch.testing.assert_close(scaled_predictions[:, [0, 2, 3]], predictions[:, [0, 2, 3]], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scaled_predictions[:, 1], 1000 * predictions[:, 1], rtol=1e-4, atol=1e-2)
    for name, weight in weights.items():
        torch.testing.assert_close(scaled_weights[name], weight, rtol=1e-3, atol=1e-5, msg=name)


def test_every_hidden_share_is_the_configs_or_what_was_measured_within_bounds() -> None:
    measured = {"user": 0.2, "item": 0.0001, "video": 0.9}

    auto = ModelConfig().unknown_shares(["user", "item", "video", "age.bucket"], measured)
    fixed = ModelConfig(unknown_share=0.05).unknown_shares(["user", "item"], measured)

    assert auto == [0.2, 0.01, 0.5, 0.01]
    assert fixed == [0.05, 0.05]


def test_start_of_rare_outcome_is_its_log_odds() -> None:
    _, model = fresh(log())

    assert model.ranker.start_T.tolist()[0] == pytest.approx(math.log(10.5 / 30.5), rel=1e-5)


def test_what_gates_learn_by_does_not_hang_on_the_unit_of_a_label() -> None:
    by_unit = []
    for scale in (1.0, 1000.0):
        encoder, model = fresh(log(scale), gate="policy")
        torch.manual_seed(0)
        by_unit.append(dict(zip(model.loss_names, model(encoder.encode(log(scale)))[1].tolist(), strict=True)))

    seconds, milliseconds = by_unit
    assert milliseconds["watch"] == pytest.approx(1e6 * seconds["watch"], rel=1e-4)
    for name in ("gates.policy", "gates.baseline"):
        assert milliseconds[name] == pytest.approx(seconds[name], rel=1e-4)
        assert seconds[name] != 0.0
