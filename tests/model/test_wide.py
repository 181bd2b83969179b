"""The linear part beside the experts."""

from typing import Any

import pyarrow as pa
import pytest
import torch

from recmoe.embeddings.tables import PlainTables
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES
from recmoe.features.schema import FeatureSchema
from recmoe.model import InputLayer, ModelConfig, MultiTaskRanker, build_model, model_layout
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet

LOG = pa.table(
    {
        "user": ["a", "b", None],
        "tags": pa.array([["red", "blue"], [], ["red"]], pa.list_(pa.string())),
        "age": [20.0, 30.0, 40.0],
        "item": ["x", "y", "x"],
        "price": [1.0, 2.0, 4.0],
    }
)
TASKS = TaskSet({name: BinaryTaskConfig(label=name) for name in ("click", "like", "buy")})
FEATURES: dict[str, Any] = {
    "item": {"kind": "id", "side": "item"},
    "price": {"kind": "numeric", "side": "item"},
    "user": {"kind": "id", "side": "user"},
    "tags": {"kind": "id_list", "side": "user", "pooling": "mean"},
    "age": {"kind": "numeric", "side": "context", "forms": ["value", "vector"]},
}


def ranker_of(*names: str, wide: dict[str, Any] | None = None) -> tuple[FeatureEncoder, MultiTaskRanker]:
    """An encoder of some features, and a model whose linear part is not 0."""
    schema = FeatureSchema.model_validate({"width": 2, "features": {name: FEATURES[name] for name in names}})
    encoder = FeatureEncoder.fit(schema, [LOG])
    torch.manual_seed(0)
    config = ModelConfig.model_validate(
        {"architecture": {"kind": "shared_bottom", "hidden": [4]}, "wide": wide or {"kind": "linear", "rate": 3.0}}
    )
    ranker = build_model(
        layout=encoder.layout, tasks=TASKS, config=config, tables=lambda rows: PlainTables(rows, init_std=1.0)
    ).eval()
    with torch.no_grad():
        for spec in ranker.input_layer.layout.tables:
            tables = ranker.input_layer.tables
            assert isinstance(tables, PlainTables)
            tables.weight(spec.name)[:, spec.vector_width :].normal_()
        if ranker.input_layer.wide is not None:
            for weight in ranker.input_layer.wide.parameters():
                weight.normal_()
    return encoder, ranker


def sided(layer: InputLayer, encoder: FeatureEncoder) -> torch.Tensor:
    """The linear part of every row, from requests and candidates; the last row is asked for first."""
    order = torch.tensor([2, 0, 1])
    wide_CT = layer.sided(
        encoder.encode(LOG, sides=SHARED_SIDES, with_labels=False),
        encoder.encode(LOG.take(pa.array(order.tolist())), sides=OWN_SIDES, with_labels=False),
        order,
    ).wide_BT
    assert wide_CT is not None
    return wide_CT[order.argsort()]


def test_linear_part_is_a_weight_per_id_and_number() -> None:
    encoder, ranker = ranker_of(*FEATURES)
    layer = ranker.input_layer
    tables, wide = layer.tables, layer.wide
    assert isinstance(tables, PlainTables)
    assert wide is not None

    wide_BT = layer(encoder.encode(LOG, with_labels=False)).wide_BT

    # Rows hold a vector of 2, weights of three towers and one float to fill up. Row 0 is unknown or missing.
    assert tables.weight("user").shape == (3, 6)
    rows = {name: tables.weight(name)[:, 2:5] for name in ("user", "tags", "item")}
    ids = {"user": [1, 2, 0], "item": [1, 2, 1]}
    age_B, price_B = (torch.tensor([20.0, 30.0, 40.0]) - 30) / (200 / 3) ** 0.5, torch.tensor([1.0, 2.0, 4.0])
    price_B = (price_B - price_B.mean()) / price_B.std(correction=0)
    red, blue = encode_tags(encoder)
    tags = [(rows["tags"][red] + rows["tags"][blue]) / 2, torch.zeros(3), rows["tags"][red]]
    expected = [
        3.0
        * (
            rows["user"][ids["user"][b]]
            + rows["item"][ids["item"][b]]
            + tags[b]
            + wide.get_parameter("shared")[:, 0] * age_B[b]
            + wide.get_parameter("own")[:, 0] * price_B[b]
        )
        for b in range(3)
    ]
    assert wide_BT is not None
    torch.testing.assert_close(wide_BT, torch.stack(expected))
    torch.testing.assert_close(sided(layer, encoder), wide_BT)


def encode_tags(encoder: FeatureEncoder) -> tuple[int, int]:
    """The rows of red and blue."""
    batch = encoder.encode(LOG, with_labels=False)
    place = [key.name for key in encoder.layout.sparse].index("tags")
    red, blue, again = batch.values.split(batch.lengths_KB.sum(dim=1).tolist())[place].tolist()
    assert red == again
    return red, blue


@pytest.mark.parametrize(
    "names", [("user",), ("item",), ("age",), ("price",), ("user", "tags", "item"), ("age", "price"), ("tags",)]
)
def test_sides_add_up_whatever_a_model_lacks(names: tuple[str, ...]) -> None:
    encoder, ranker = ranker_of(*names)

    batch = encoder.encode(LOG, with_labels=False)
    wide_BT = ranker.input_layer(batch).wide_BT

    assert wide_BT is not None
    assert wide_BT.count_nonzero() > 0
    torch.testing.assert_close(sided(ranker.input_layer, encoder), wide_BT)


def test_logit_is_tower_and_linear_part_in_units_from_the_start() -> None:
    encoder, ranker = ranker_of(*FEATURES)
    batch = encoder.encode(LOG, with_labels=False)
    ranker.start_T.copy_(torch.tensor([-2.0, 0.5, 7.0]))
    ranker.unit_T.copy_(torch.tensor([1.0, 1.0, 10.0]))

    logits_BZ = ranker(batch).logits_BZ

    rows = ranker.input_layer(batch)
    model_BZ = ranker.model(rows.inputs).logits_BZ
    assert rows.wide_BT is not None
    expected = torch.tensor([-2.0, 0.5, 7.0]) + torch.tensor([1.0, 1.0, 10.0]) * (model_BZ + rows.wide_BT)
    torch.testing.assert_close(logits_BZ, expected)


def test_experts_alone_have_rows_of_vectors() -> None:
    encoder, ranker = ranker_of(*FEATURES, wide={"kind": "none"})

    inputs = ranker.input_layer(encoder.encode(LOG, with_labels=False))

    assert inputs.wide_BT is None
    assert ranker.input_layer.wide is None
    config = ModelConfig.model_validate({"wide": {"kind": "none"}})
    assert model_layout(encoder.layout, tasks=TASKS, config=config) == encoder.layout


def test_linear_part_is_float32_under_autocast() -> None:
    encoder, ranker = ranker_of(*FEATURES)
    batch = encoder.encode(LOG, with_labels=False)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        low_BT = ranker.input_layer(batch).wide_BT

    full_BT = ranker.input_layer(batch).wide_BT
    assert low_BT is not None
    assert low_BT.dtype == torch.float32
    assert torch.equal(low_BT, full_BT)
