"""Histories as columns of the model's input: what they read, where they stand, and that a request encodes them once."""

from typing import Any, get_args

import pyarrow as pa
import pytest
import torch

from recmoe.embeddings.tables import PlainTables
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES
from recmoe.features.schema import FeatureSchema
from recmoe.model import InputLayer, ModelConfig, build_model, input_order, model_layout
from recmoe.model.histories import history_columns
from recmoe.model.inputs import input_widths
from recmoe.moe.linear import SidedInput
from recmoe.sequence import HistoryEncoderConfig
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet

KINDS = [cls.model_fields["kind"].default for cls in get_args(get_args(HistoryEncoderConfig)[0])]
LOG = pa.table(
    {
        "user": ["a", "b", "c", "a"],
        "age": [20.0, 30.0, 40.0, 50.0],
        "seen": [["x", "y"], [], ["z"], ["z", "x", "y"]],
        "done": [["look", "buy"], [], ["look"], ["buy", "look", "look"]],
        "seen_at": [[10.0, 20.0], [], [5.0], [1.0, 2.0, 400.0]],
        "item": ["x", "y", "z", "x"],
        "words": [["y"], ["x", "z"], [], ["z"]],
        "price": [1.0, 2.0, 3.0, 4.0],
        "click": [0, 1, 1, 0],
    }
)
COLUMNS = {"item": {"column": "seen", "table": "item"}, "action": {"column": "done"}}
FEATURES: dict[str, Any] = {
    "words": {"kind": "id_list", "side": "item", "table": "item"},
    "item": {"kind": "id", "side": "item"},
    "price": {"kind": "numeric", "side": "item"},
    "user": {"kind": "id", "side": "user"},
    "history": {"kind": "sequence", "columns": COLUMNS, "time": "seen_at", "encoder": {"kind": "mean"}},
    "age": {"kind": "numeric", "side": "user"},
}


def encoder_of(*, kind: str = "mean", **history: Any) -> FeatureEncoder:
    features = {**FEATURES, "history": {**FEATURES["history"], "encoder": {"kind": kind}, **history}}
    return FeatureEncoder.fit(FeatureSchema.model_validate({"width": 2, "features": features}), [LOG])


def input_layer(encoder: FeatureEncoder) -> InputLayer:
    torch.manual_seed(0)
    return InputLayer(layout=encoder.layout, tables=PlainTables(encoder.layout, seed=1, init_std=1.0))


def test_a_mean_of_a_history_stands_at_the_end_of_the_shared_half() -> None:
    encoder = encoder_of()
    layer = input_layer(encoder)

    x_BD = layer(encoder.encode(LOG, with_labels=False)).inputs.x

    tables = layer.tables
    assert isinstance(tables, PlainTables)
    item_VD, action_VD = tables.weight("item"), tables.weight("history#action")
    found = [encoder.encode(LOG.slice(row, 1), with_labels=False).sequences(encoder.layout) for row in range(4)]
    for row in (0, 2, 3):
        sequence = found[row]["history"]
        expected = torch.cat(
            [item_VD[sequence.rows_N["history#item"]].mean(0), action_VD[sequence.rows_N["history#action"]].mean(0)]
        )
        torch.testing.assert_close(x_BD[row, 3:7], expected)
    assert not x_BD[1, 3:7].any()
    assert [part.name for part in input_order(encoder.layout)] == ["user", "age", "history", "words", "item", "price"]
    assert x_BD.shape == (4, input_widths(encoder.layout, {})["all"])
    assert input_widths(encoder.layout, {})["all"] == (2 + 1 + 4) + (2 + 2 + 1)


@pytest.mark.parametrize(("kind", "width"), [("target_attention", 4), ("transformer", 32)])
def test_what_a_candidate_reads_stands_at_the_end_of_its_own_half(kind: str, width: int) -> None:
    encoder = encoder_of(kind=kind)
    layer = input_layer(encoder)

    x_BD = layer(encoder.encode(LOG, with_labels=False)).inputs.x

    assert [part.name for part in input_order(encoder.layout)] == ["user", "age", "words", "item", "price", "history"]
    assert x_BD.shape == (4, input_widths(encoder.layout, {})["all"]) == (4, 3 + 5 + width)
    assert x_BD[:, 8:].any(dim=1).tolist() == [True, False, True, True]


def test_the_query_is_the_candidates_own_id_in_the_table_of_the_history() -> None:
    encoder = encoder_of(kind="target_attention")
    layer = input_layer(encoder)
    other = LOG.set_column(LOG.column_names.index("item"), "item", pa.array(["z", "z", "y", "z"]))
    words = LOG.set_column(LOG.column_names.index("words"), "words", pa.array([["z"], [], ["y"], ["x"]]))

    x, other_x, words_x = (layer(encoder.encode(log, with_labels=False)).inputs.x for log in (LOG, other, words))

    (part,) = history_columns(encoder.layout, reads_candidate=True)
    assert [key and key.name for key in part.query] == ["item", None]
    assert (x[:, 8:] != other_x[:, 8:]).any(dim=1).tolist() == [True, False, True, True]
    assert torch.equal(x[:, 8:], words_x[:, 8:])


def test_a_candidate_without_a_table_of_the_history_is_the_query_as_a_whole() -> None:
    encoder = encoder_of(kind="target_attention", columns={"item": {"column": "seen"}})
    layer = input_layer(encoder)
    dearer = LOG.set_column(LOG.column_names.index("price"), "price", pa.array([2.0, 3.0, 4.0, 1.0]))

    x, dearer_x = (layer(encoder.encode(log, with_labels=False)).inputs.x for log in (LOG, dearer))

    (part,) = history_columns(encoder.layout, reads_candidate=True)
    assert part.is_query_whole
    assert (x[:, 8:] != dearer_x[:, 8:]).any(dim=1).tolist() == [True, False, True, True]


@pytest.mark.parametrize("kind", ["target_attention", "transformer"])
def test_candidates_without_features_read_the_entries_alone(kind: str) -> None:
    shared = {name: FEATURES[name] for name in ("user", "age")}
    history = {**FEATURES["history"], "columns": {"item": {"column": "seen"}}, "encoder": {"kind": kind}}
    schema = FeatureSchema.model_validate({"width": 2, "features": {**shared, "history": history}})
    encoder = FeatureEncoder.fit(schema, [LOG])
    layer = input_layer(encoder)

    whole = layer(encoder.encode(LOG, with_labels=False)).inputs.x
    sided = layer.sided(
        encoder.encode(LOG, sides=SHARED_SIDES, with_labels=False),
        encoder.encode(LOG, sides=OWN_SIDES, with_labels=False),
        torch.arange(4),
    ).inputs.x

    assert isinstance(sided, SidedInput)
    assert whole[:, 3:].any(dim=1).tolist() == [True, False, True, True]
    torch.testing.assert_close(sided.concatenated(), whole)


@pytest.mark.parametrize("rows", [[0, 1, 2], [3], [1]], ids=["three requests", "one request", "one without history"])
@pytest.mark.parametrize("kind", KINDS)
def test_sided_input_equals_the_whole_one(kind: str, rows: list[int]) -> None:
    encoder = encoder_of(kind=kind)
    layer = input_layer(encoder)
    for parameter in layer.histories.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    request_C = torch.tensor([0, 1, 2, 1, 0, 2, 2]) % len(rows)
    shared_rows, own_rows = LOG.take(rows), LOG.take([0, 1, 2, 3, 0, 1, 2])
    joined = {name: own_rows[name] for name in ("item", "words", "price")}
    for name in ("user", "age", "seen", "done", "seen_at"):
        joined[name] = shared_rows[name].take(pa.array(request_C.tolist()))

    whole = layer(encoder.encode(pa.table(joined), with_labels=False)).inputs.x
    sided = layer.sided(
        encoder.encode(shared_rows, sides=SHARED_SIDES, with_labels=False),
        encoder.encode(own_rows, sides=OWN_SIDES, with_labels=False),
        request_C,
    ).inputs.x

    assert isinstance(sided, SidedInput)
    torch.testing.assert_close(sided.concatenated(), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_history_is_encoded_once_per_request(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of(kind=kind)
    layer = input_layer(encoder)
    module: Any = layer.histories.encoders["history"]
    encode, encoded_rows = module.encode, []

    def counted(*arguments: Any) -> Any:
        encoded_rows.append(len(arguments[0]))
        return encode(*arguments)

    monkeypatch.setattr(module, "encode", counted)

    layer.sided(
        encoder.encode(LOG.slice(0, 2), sides=SHARED_SIDES, with_labels=False),
        encoder.encode(LOG.take([0] * 200), sides=OWN_SIDES, with_labels=False),
        torch.arange(200) % 2,
    )

    assert encoded_rows == [2]


@pytest.mark.parametrize("kind", KINDS)
def test_the_linear_part_takes_nothing_of_a_history(kind: str) -> None:
    encoder = encoder_of(kind=kind)
    tasks = TaskSet({"ctr": BinaryTaskConfig(label="click")})
    config = ModelConfig.model_validate({"architecture": {"kind": "shared_bottom", "hidden": [4]}})
    layout = model_layout(encoder.layout, tasks=tasks, config=config)

    model = build_model(layout=encoder.layout, tasks=tasks, config=config, tables=PlainTables).eval()

    widths = {spec.name: (spec.width, spec.vector_width) for spec in layout.tables}
    assert widths == {"user": (6, 2), "item": (6, 2), "history#action": (2, 2)}
    for parameter in model.input_layer.tables.parameters():
        torch.nn.init.normal_(parameter)
    wide_BT = model.input_layer(encoder.encode(LOG, with_labels=False)).wide_BT
    other = LOG.set_column(LOG.column_names.index("seen"), "seen", pa.array([["z", "z"], ["x"], [], ["x", "x", "z"]]))
    other = other.drop_columns(["done", "seen_at"]).append_column(
        "done", pa.array([["buy"] * 2, ["buy"], [], ["buy"] * 3])
    )
    other = other.append_column("seen_at", pa.array([[1.0, 2.0], [1.0], [], [1.0, 2.0, 3.0]]))
    assert wide_BT is not None
    assert wide_BT.std() > 0.1
    assert torch.equal(model.input_layer(encoder.encode(other, with_labels=False)).wide_BT, wide_BT)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_and_every_touched_row_gets_a_gradient(kind: str) -> None:
    encoder = encoder_of(kind=kind)
    layer = input_layer(encoder)
    for parameter in layer.histories.parameters():
        torch.nn.init.normal_(parameter, std=0.3)

    layer(encoder.encode(LOG, with_labels=False)).inputs.x.square().sum().backward()

    without = [name for name, p in layer.named_parameters() if p.grad is None or not p.grad.to_dense().any()]
    assert without == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_any_history_trains(kind: str) -> None:
    encoder = encoder_of(kind=kind)
    layer = input_layer(encoder)
    empty = pa.array([[]] * 4, pa.list_(pa.string()))
    log = LOG.drop_columns(["seen", "done", "seen_at"])
    log = log.append_column("seen", empty).append_column("done", empty)
    log = log.append_column("seen_at", pa.array([[]] * 4, pa.list_(pa.float64())))

    x_BD = layer(encoder.encode(log, with_labels=False)).inputs.x
    x_BD.square().sum().backward()

    assert x_BD.isfinite().all()
    # A weight without a gradient would stop the workers of a job that has several.
    gradients = [parameter.grad for parameter in layer.parameters()]
    assert all(gradient is not None and gradient.to_dense().isfinite().all() for gradient in gradients)
