"""Explanations are of what is served: of requests as of flat rows, whatever the model is made of."""

from typing import Any, get_args

import pyarrow as pa
import pytest
import torch

from recmoe.architectures import ArchitectureConfig
from recmoe.architectures.trunks import TrunkConfig
from recmoe.client.explanation import Explanation, TaskExplanation
from recmoe.errors import RequestError
from recmoe.export.bundle import ModelBundle
from recmoe.features.encoder import FeatureEncoder
from recmoe.model.attributions import default_orders
from recmoe.model.inputs import feature_widths
from recmoe.moe.balance.statistics import visible
from recmoe.moe.gates import GateConfig
from recmoe.products import has_fast_bf16
from recmoe.ranking import Ranker, RankRequest
from recmoe.ranking.columns import RequestDecoder
from recmoe.ranking.explain import Explainer
from tests.ranking.drawn_models import model_of

USER, CONTEXT = {"user_id": "u3", "tags": ["wool", "new"], "age": 40}, {"hour": 12}
CANDIDATES = [
    {"item_id": 101, "price": 3.5, "words": ["red"]},
    {"item_id": 102, "price": 60.0, "words": ["silk", "blue"]},
    {"item_id": 103, "price": None, "words": []},
]


def kinds(union: Any) -> list[str]:
    return [member.model_fields["kind"].default for member in get_args(get_args(union)[0])]


MODELS: dict[str, dict[str, Any]] = {
    **{kind: {"architecture": {"kind": kind}} for kind in kinds(ArchitectureConfig)},
    **{
        f"gate {kind}": {"architecture": {"kind": "ple", "expert_hidden": [8], "gate": {"kind": kind}}}
        for kind in kinds(GateConfig)
    },
    **{f"trunk {kind}": {"trunk": {"kind": kind}} for kind in kinds(TrunkConfig)},
    "domain by an id": {"architecture": {"kind": "star", "domain": "user_id"}},
    "gate by an id": {"architecture": {"kind": "mmoe", "gate": {"kind": "hash", "feature": "item_id"}}},
}
"""Every kind of architecture, gate and trunk, with its defaults; and what reads ids themselves."""


@pytest.fixture(scope="module")
def ranker(bundle: ModelBundle) -> Ranker:
    return Ranker.load(bundle)


def asked(**changes: Any) -> RankRequest:
    document = {"user": USER, "context": CONTEXT, "candidates": CANDIDATES, "explain": True, "top_features": 100}
    return RankRequest.parse({**document, **changes})


def explanations(ranker: Ranker, **changes: Any) -> dict[Any, Explanation]:
    """By item."""
    found = {item.item_id: item.explanation for item in ranker.rank(asked(**changes)).items}
    return {item_id: explanation for item_id, explanation in found.items() if explanation is not None}


def moves(task: TaskExplanation) -> dict[str, float]:
    return {one.feature: one.value for one in task.features}


def assert_adds_up(task: TaskExplanation) -> None:
    assert task.base + sum(moves(task).values()) + task.others == pytest.approx(task.predicted, abs=1e-9)


def log_odds(probability: float) -> float:
    return float(torch.logit(torch.tensor(probability, dtype=torch.float64)))


def test_explanation_is_of_the_prediction_in_the_answer(ranker: Ranker) -> None:
    response = ranker.rank(asked())

    assert len(response.items) == 3
    for item in response.items:
        assert item.explanation is not None
        assert list(item.explanation.tasks) == ["ctr", "cvr", "ctcvr"]
        for name, task in item.explanation.tasks.items():
            assert task.unit == "log-odds"
            assert task.predicted == pytest.approx(log_odds(item.tasks[name]), abs=1e-4)
            assert_adds_up(task)
            sizes = [abs(one.value) for one in task.features]
            assert sizes == sorted(sizes, reverse=True)
            assert len(sizes) == 7
            assert task.others == 0.0


def test_attributions_are_what_requests_without_the_fields_are_ranked_by(ranker: Ranker) -> None:
    features = tuple(feature_widths(ranker.bundle.model.input_layer.layout))
    candidate = CANDIDATES[0]

    def predicted(given: set[str]) -> float:
        response = ranker.rank(
            asked(
                user={name: value for name, value in USER.items() if name in given},
                context={name: value for name, value in CONTEXT.items() if name in given},
                # An item has to have a name; one that training has not seen stands for none.
                candidates=[{"item_id": 999} | {name: candidate[name] for name in candidate if name in given}],
                explain=False,
            )
        )
        return log_odds(response.items[0].tasks["ctcvr"])

    expected = dict.fromkeys(features, 0.0)
    orders = default_orders(len(features))
    for order in orders:
        given: set[str] = set()
        for place in order:
            before = predicted(given)
            given.add(features[place])
            expected[features[place]] += (predicted(given) - before) / len(orders)

    task = explanations(ranker)[101].tasks["ctcvr"]
    assert moves(task) == pytest.approx(expected, abs=1e-4)
    assert task.base == pytest.approx(predicted(set()), abs=1e-4)
    assert max(expected.values()) > 1e-3


def test_features_that_are_not_told_are_summed_up(ranker: Ranker) -> None:
    everything = explanations(ranker)[101].tasks["ctr"]

    task = explanations(ranker, top_features=2)[101].tasks["ctr"]

    assert task.features == everything.features[:2]
    assert task.others == pytest.approx(sum(one.value for one in everything.features[2:]))
    assert (task.base, task.predicted) == (everything.base, everything.predicted)
    assert len(explanations(ranker, top_features=5)[101].tasks["ctr"].features) == 5


def test_only_items_and_tasks_that_are_returned_are_explained(ranker: Ranker) -> None:
    everything = explanations(ranker)

    response = ranker.rank(asked(top_k=2, tasks=["cvr"]))

    assert len(response.items) == 2
    for item in response.items:
        assert item.explanation is not None
        assert list(item.explanation.tasks) == ["cvr"]
        whole = everything[item.item_id].tasks["cvr"]
        assert moves(item.explanation.tasks["cvr"]) == pytest.approx(moves(whole), abs=1e-5)


def test_field_that_is_not_given_moves_nothing(ranker: Ranker) -> None:
    task = explanations(ranker, user={"user_id": "u3", "age": None})[103].tasks["ctr"]

    assert {"tags", "age", "price", "words"} <= {name for name, value in moves(task).items() if abs(value) < 1e-6}
    assert abs(moves(task)["user_id"]) > 1e-4


def test_requests_are_explained_as_the_same_rows_offline(ranker: Ranker) -> None:
    schema = ranker.bundle.encoder.arrow_schema()
    rows = pa.Table.from_pylist([{**USER, **CONTEXT, **candidate} for candidate in CANDIDATES], schema)

    offline = ranker.explainer.of_rows(rows)

    for candidate, expected in zip(CANDIDATES, offline, strict=True):
        found = explanations(ranker)[candidate["item_id"]]
        assert [(one.level, one.gate) for one in found.gates] == [(0, "ctr"), (0, "cvr")]
        for one, other in zip(found.gates, expected.gates, strict=True):
            assert one.weights == pytest.approx(other.weights, abs=1e-6)
        for name, task in expected.tasks.items():
            assert moves(found.tasks[name]) == pytest.approx(moves(task), abs=1e-5)


@pytest.mark.skipif(not has_fast_bf16(torch.device("cpu")), reason="the processor has no bf16 arithmetic")
def test_products_in_bf16_are_explained_as_they_predict(bundle: ModelBundle, ranker: Ranker) -> None:
    reduced = Ranker.load(bundle, precision="bf16")

    response = reduced.rank(asked())

    exact = explanations(ranker)
    for item in response.items:
        assert item.explanation is not None
        for name, task in item.explanation.tasks.items():
            assert_adds_up(task)
            assert task.predicted == pytest.approx(log_odds(item.tasks[name]), abs=2e-2)
            assert moves(task) == pytest.approx(moves(exact[item.item_id].tasks[name]), abs=2e-2)


def test_requests_together_are_explained_where_they_ask_for_it(ranker: Ranker) -> None:
    first, second, wrong = ranker.rank_many([asked(explain=False), asked(top_k=1), asked(tasks=["ctrr"])])

    assert not isinstance(first, RequestError)
    assert not isinstance(second, RequestError)
    assert isinstance(wrong, RequestError)
    assert [item.explanation for item in first.items] == [None] * 3
    assert [item.explanation is None for item in second.items] == [False]


def test_answer_says_nothing_of_explanations_unless_asked(ranker: Ranker) -> None:
    response = ranker.rank(asked(explain=False))

    assert "expla" not in response.model_dump_json()
    assert list(response.model_dump()["items"][0]) == ["item_id", "score", "tasks"]
    assert list(response.timing_ms) == ["decode", "features", "model", "score", "total"]


def test_time_for_explanations_is_a_stage_of_its_own(ranker: Ranker) -> None:
    assert list(ranker.rank(asked()).timing_ms) == ["decode", "features", "model", "score", "explain", "total"]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("explain", "yes", 'input should be a valid boolean, found "yes"'),
        ("explain", 1, "input should be a valid boolean, found 1"),
        ("top_features", 0, "input should be greater than or equal to 1, found 0"),
        ("top_features", 101, "input should be less than or equal to 100, found 101"),
    ],
)
def test_wrong_wish_is_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message) as wrong:
        asked(**{field: value})

    assert wrong.value.field == field


@pytest.mark.parametrize("name", MODELS)
def test_model_of_every_kind_is_explained(
    name: str, shop_encoder: FeatureEncoder, shop_config: dict[str, Any], shop_log: pa.Table
) -> None:
    model = model_of(MODELS[name], shop_encoder, shop_config["tasks"])
    rows = shop_log.slice(0, 5)

    found = Explainer(model, shop_encoder, RequestDecoder(shop_encoder), "fp32").of_rows(rows)

    with torch.inference_mode():
        output = model(shop_encoder.encode(rows, with_labels=False))
        predictions_BT = model.tasks.predict(output.logits_BZ)
        expected = [
            (use.level, gate, use.experts, use.weights_BGE[:, place], visible(use)[place])
            for use in output.all_uses()
            for place, gate in enumerate(use.gates)
        ]
    for row, explanation in enumerate(found):
        for place, task in enumerate(explanation.tasks.values()):
            assert_adds_up(task)
            assert task.predicted == pytest.approx(log_odds(float(predictions_BT[row, place])), abs=1e-4)
        assert [(one.level, one.gate) for one in explanation.gates] == [(level, gate) for level, gate, *_ in expected]
        for one, (_, _, experts, weights_BE, is_visible_E) in zip(explanation.gates, expected, strict=True):
            weights = dict(zip(experts, weights_BE[row].tolist(), strict=True))
            seen = [expert for expert, is_seen in zip(experts, is_visible_E.tolist(), strict=True) if is_seen]
            assert one.weights == pytest.approx({expert: weights[expert] for expert in seen}, abs=1e-5)
    assert any(abs(one.value) > 1e-5 for one in found[0].tasks["ctr"].features)


@pytest.mark.parametrize("kind", ["single_task", "shared_bottom"])
def test_model_without_experts_has_no_gates(
    kind: str, shop_encoder: FeatureEncoder, shop_config: dict[str, Any], shop_log: pa.Table
) -> None:
    model = model_of({"architecture": {"kind": kind}}, shop_encoder, shop_config["tasks"])

    (found,) = Explainer(model, shop_encoder, RequestDecoder(shop_encoder), "fp32").of_rows(shop_log.slice(0, 1))

    assert found.gates == []
