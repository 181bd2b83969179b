from typing import Any, get_args

import pyarrow as pa
import pytest
import torch

from recmoe.architectures import ArchitectureConfig
from recmoe.balancing.weightings import FixedWeightingConfig
from recmoe.embeddings.tables import PlainTables
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES
from recmoe.features.schema import FeatureSchema
from recmoe.model import InputLayer, ModelConfig, MultiTaskRanker, TrainingModel, build_model, input_order
from recmoe.moe.balance.importance import importance_loss
from recmoe.moe.linear import SidedInput
from recmoe.tasks.binary import BinaryTaskConfig
from recmoe.tasks.funnel import TaskSet

KINDS = [cls.model_fields["kind"].default for cls in get_args(get_args(ArchitectureConfig)[0])]

LOG = pa.table(
    {
        "user": ["a", "b", "c", "a"],
        "age": [20.0, 30.0, 40.0, 50.0],
        "item": ["x", "y", "z", "x"],
        "price": [1.0, 2.0, 3.0, 4.0],
    }
)


def encoder_of(features: dict[str, Any], log: pa.Table = LOG) -> FeatureEncoder:
    return FeatureEncoder.fit(FeatureSchema.model_validate({"width": 2, "features": features}), [log])


def input_layer(encoder: FeatureEncoder) -> InputLayer:
    return InputLayer(layout=encoder.layout, tables=PlainTables(encoder.layout, seed=1, init_std=1.0))


@pytest.fixture(params=KINDS)
def ranker(
    request: pytest.FixtureRequest, shop_encoder: FeatureEncoder, shop_model: MultiTaskRanker
) -> MultiTaskRanker:
    """A small model of every architecture."""
    torch.manual_seed(5)
    layout = shop_encoder.layout
    config = ModelConfig.model_validate({"architecture": {"kind": request.param}, "towers": {"hidden": [4]}})
    model = build_model(
        layout=layout,
        tasks=shop_model.tasks,
        config=config,
        tables=lambda rows: PlainTables(rows, seed=3, init_std=1.0),
    ).eval()
    with torch.no_grad():
        # So that predictions of different rows differ by more than rounding does.
        for parameter in model.model.parameters():
            parameter.mul_(2.0)
    return model


def test_predict_sided_equals_predict_for_several_requests_at_once(
    ranker: MultiTaskRanker, shop_encoder: FeatureEncoder, shop_log: pa.Table
) -> None:
    # Three requests of two, one and three candidates, not in order.
    request_C = torch.tensor([1, 0, 2, 2, 0, 2])
    shared_rows, own_rows = shop_log.slice(20, 3), shop_log.slice(50, 6)
    joined = {name: own_rows[name] for name in own_rows.column_names}
    for name in ("user_id", "tags", "age", "hour"):
        joined[name] = shared_rows[name].take(pa.array(request_C.tolist()))

    with torch.no_grad():
        whole_CT = ranker.predict(shop_encoder.encode(pa.table(joined), with_labels=False))
        sided_CT = ranker.predict_sided(
            shop_encoder.encode(shared_rows, sides=SHARED_SIDES, with_labels=False),
            shop_encoder.encode(own_rows, sides=OWN_SIDES, with_labels=False),
            request_C,
        )

    assert whole_CT.shape == (6, 3)
    assert whole_CT.std(dim=0).min() > 1e-3
    torch.testing.assert_close(sided_CT, whole_CT, rtol=1e-5, atol=1e-6)


def test_input_is_shared_columns_then_own_ones_whatever_their_order_in_the_batch() -> None:
    encoder = encoder_of(
        {
            "item": {"kind": "id", "side": "item"},
            "price": {"kind": "numeric", "side": "item"},
            "user": {"kind": "id", "side": "user"},
            "age": {"kind": "numeric", "side": "user"},
        }
    )
    layer = input_layer(encoder)
    batch = encoder.encode(LOG, with_labels=False)

    x_BD = layer(batch).inputs.x

    tables = layer.tables
    assert isinstance(tables, PlainTables)
    # Age is 20 … 50 with mean 35 and a standard deviation of √125; price 1 … 4 with mean 2.5 and √1.25.
    torch.testing.assert_close(x_BD[0, :2], tables.weight("user")[1])
    torch.testing.assert_close(x_BD[0, 2], torch.tensor((20 - 35) / 125**0.5))
    torch.testing.assert_close(x_BD[0, 3:5], tables.weight("item")[1])
    torch.testing.assert_close(x_BD[0, 5], torch.tensor((1 - 2.5) / 1.25**0.5))
    assert x_BD.shape == (4, encoder.layout.width)
    assert [part.name for part in input_order(encoder.layout)] == ["user", "age", "item", "price"]


def test_sided_input_is_the_input_cut_after_the_shared_columns() -> None:
    numeric = {"kind": "numeric", "forms": ["value", "bucket", "vector"], "buckets": {"kind": "quantile", "count": 2}}
    encoder = encoder_of({"price": {**numeric, "side": "item"}, "age": {**numeric, "side": "user"}})
    layer = input_layer(encoder)

    x_BD = layer(encoder.encode(LOG, with_labels=False)).inputs.x
    sided = layer.sided(
        encoder.encode(LOG, sides=SHARED_SIDES, with_labels=False),
        encoder.encode(LOG, sides=OWN_SIDES, with_labels=False),
        torch.arange(4),
    ).inputs.x

    assert isinstance(sided, SidedInput)
    # Each side: a bucket's embedding of 2, a value, a vector of 2.
    assert sided.shared_RS.shape == sided.own_CI.shape == (4, 5)
    torch.testing.assert_close(torch.cat([sided.shared_RS, sided.own_CI], dim=1), x_BD)


@pytest.mark.parametrize("side", ["user", "item"])
def test_a_model_of_one_side_leaves_the_other_half_empty(side: str) -> None:
    encoder = encoder_of({"user": {"kind": "id", "side": side}})
    layer = input_layer(encoder)

    sided = layer.sided(
        encoder.encode(LOG, sides=SHARED_SIDES, with_labels=False),
        encoder.encode(LOG, sides=OWN_SIDES, with_labels=False),
        torch.arange(4),
    ).inputs.x

    assert isinstance(sided, SidedInput)
    assert (sided.shared_RS.shape[1], sided.own_CI.shape[1]) == ((2, 0) if side == "user" else (0, 2))


def test_training_loss_is_the_weighted_sum_of_the_losses_and_the_balance(
    shop_encoder: FeatureEncoder, shop_model: MultiTaskRanker, shop_log: pa.Table
) -> None:
    weighting = FixedWeightingConfig().build(weights=[1.0, 2.0, 3.0], outputs=["binary"] * 3)
    batch = shop_encoder.encode(shop_log)

    loss, losses_T = TrainingModel(ranker=shop_model, weighting=weighting)(batch)
    terms = {"even": (0.5, importance_loss), "seen": (0.0, importance_loss)}
    training_model = TrainingModel(ranker=shop_model, weighting=weighting, balance=terms)
    balanced, with_terms = training_model(batch)

    # Probabilities alone: each loss is measured in nats.
    expected = losses_T[0] + 2 * losses_T[1] + 3 * losses_T[2]
    torch.testing.assert_close(loss.detach(), expected)
    penalty = importance_loss(shop_model(batch).gate_uses)
    assert penalty > 0
    torch.testing.assert_close(balanced.detach(), expected + 0.5 * penalty.detach())
    assert training_model.loss_names == (*shop_model.tasks.names, "balance.even", "balance.seen")
    torch.testing.assert_close(with_terms, torch.cat([losses_T, penalty.detach().expand(2)]))


def test_hidden_ids_are_read_as_row_zero(
    shop_encoder: FeatureEncoder, shop_model: MultiTaskRanker, shop_log: pa.Table
) -> None:
    weighting = FixedWeightingConfig().build(weights=[1.0] * 3, outputs=["binary"] * 3)
    batch = shop_encoder.encode(shop_log)

    shares = [1.0 if key.name == "item_id" else 0.0 for key in shop_encoder.layout.sparse]
    hiding = TrainingModel(ranker=shop_model, weighting=weighting, unknown_shares=shares).prepare(batch, 0)
    open_ = TrainingModel(ranker=shop_model, weighting=weighting).prepare(batch, 0)

    counts = batch.lengths_KB.sum(dim=1).tolist()
    for share, hidden, ids in zip(shares, hiding.values.split(counts), batch.values.split(counts), strict=True):
        assert torch.equal(hidden, torch.zeros_like(ids) if share else ids)
    assert open_ is batch


def test_hidden_ids_depend_on_seed_and_step_alone(
    shop_encoder: FeatureEncoder, shop_model: MultiTaskRanker, shop_log: pa.Table
) -> None:
    weighting = FixedWeightingConfig().build(weights=[1.0] * 3, outputs=["binary"] * 3)
    batch = shop_encoder.encode(shop_log)
    shares = [0.3] * len(shop_encoder.layout.sparse)

    def hidden(seed: int, step: int) -> torch.Tensor:
        model = TrainingModel(ranker=shop_model, weighting=weighting, unknown_shares=shares, seed=seed)
        return model.prepare(batch, step).values

    before = torch.random.get_rng_state()
    first = hidden(1, 5)

    # A batch that a pipeline has taken ahead is hidden the same when a resumed run takes it again.
    assert torch.equal(hidden(1, 5), first)
    assert not torch.equal(hidden(1, 6), first)
    assert not torch.equal(hidden(2, 5), first)
    assert torch.equal(torch.random.get_rng_state(), before)
    was_known = batch.values > 0
    assert 0.25 < float((first[was_known] == 0).float().mean()) < 0.35


def test_logits_are_float32_under_autocast(shop_encoder: FeatureEncoder, shop_log: pa.Table) -> None:
    layout = shop_encoder.layout
    tasks = TaskSet({"ctr": BinaryTaskConfig(label="click")})
    model = build_model(layout=layout, tasks=tasks, config=ModelConfig(), tables=PlainTables)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits_BZ = model(shop_encoder.encode(shop_log.slice(0, 4), with_labels=False)).logits_BZ

    assert logits_BZ.dtype == torch.float32
