"""A ranker orders candidates as the model scores them, and refuses a bundle that scores differently."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from recmoe.errors import BundleError, RequestError, ServingError
from recmoe.export.bundle import ModelBundle
from recmoe.features.batch import Batch
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.kinds import IdFeature, NumericFeature
from recmoe.features.kinds.numeric_columns import NumberColumns
from recmoe.features.schema import FeatureSchema
from recmoe.products import has_fast_bf16
from recmoe.ranking import Ranker, RankRequest
from recmoe.ranking.columns import RequestDecoder
from recmoe.ranking.feature_warnings import FeatureWarnings
from recmoe.ranking.precision import TOLERANCES
from recmoe.ranking.request import RankResponse
from recmoe.ranking.stages import decode


@pytest.fixture(scope="module")
def ranker(bundle: ModelBundle) -> Ranker:
    return Ranker.load(bundle, version="7")


def request(num_candidates: int = 6, **changes: Any) -> RankRequest:
    candidates = [
        {"item_id": 100 + index, "price": 3.0 * index, "words": ["red", "silk"][: index % 3]}
        for index in range(num_candidates)
    ]
    document = {
        "user": {"user_id": "u3", "tags": ["wool"], "age": 40},
        "context": {"hour": 12},
        "candidates": candidates,
    }
    return RankRequest.parse({**document, **changes})


def test_items_fall_by_score_and_carry_predictions(ranker: Ranker) -> None:
    response = ranker.rank(request(request_id="r1"))

    scores = [item.score for item in response.items]
    assert len(response.items) == 6
    assert scores == sorted(scores, reverse=True)
    assert response.request_id == "r1"
    assert response.model.name == "shop"
    assert response.model.version == "7"
    assert len(response.model.digest) == 64
    assert response.score.name == "profit"
    assert response.score.formula == "ctcvr * 12 - 0.1 * ctr"
    for item in response.items:
        assert item.tasks["ctcvr"] == pytest.approx(item.tasks["ctr"] * item.tasks["cvr"], abs=1e-6)
        assert item.score == pytest.approx(12 * item.tasks["ctcvr"] - 0.1 * item.tasks["ctr"])
    assert list(response.timing_ms) == ["decode", "features", "model", "score", "total"]
    assert response.warnings == []


def test_top_k_tasks_and_score_are_chosen_per_request(ranker: Ranker) -> None:
    everything = ranker.rank(request(score="cvr"))

    response = ranker.rank(request(top_k=2, tasks=["cvr"], score="cvr"))

    assert [item.item_id for item in response.items] == [item.item_id for item in everything.items[:2]]
    assert [list(item.tasks) for item in response.items] == [["cvr"], ["cvr"]]
    assert response.items[0].score == response.items[0].tasks["cvr"]


def test_equal_scores_are_ordered_by_item_id(ranker: Ranker) -> None:
    # Ids that training has not seen are all row 0, so their scores are equal.
    response = ranker.rank(request(candidates=[{"item_id": 903}, {"item_id": 901}, {"item_id": 902}]))

    assert [item.item_id for item in response.items] == [901, 902, 903]


def test_several_requests_at_once_score_as_each_alone(ranker: Ranker) -> None:
    requests = [
        request(3),
        request(1, user={"user_id": "u5"}, context={}),
        request(5, user={}, score="ctr", top_k=4),
    ]

    together = ranker.rank_many(requests)

    for alone, response in zip(map(ranker.rank, requests), together, strict=True):
        assert [item.item_id for item in response.items] == [item.item_id for item in alone.items]
        assert response.warnings == alone.warnings
        for item, other in zip(response.items, alone.items, strict=True):
            assert item.tasks == pytest.approx(other.tasks, abs=1e-6)


def test_unknown_and_missing_values_are_warned_of_per_feature(ranker: Ranker) -> None:
    response = ranker.rank(
        request(
            user={"user_id": "nobody", "tags": ["wool", "velvet", "lace"], "age": None},
            candidates=[{"item_id": 101, "words": []}, {"item_id": 999, "price": 1.0, "words": None}],
        )
    )

    found = {(warning.feature, warning.code): warning.count for warning in response.warnings}
    assert found == {
        ("user_id", "unknown"): 1,
        ("tags", "unknown"): 2,
        ("age", "missing"): 1,
        ("item_id", "unknown"): 1,
        ("words", "missing"): 1,
        ("price", "missing"): 1,
    }


def test_warning_names_the_field_of_a_feature_that_is_called_otherwise() -> None:
    schema = FeatureSchema(
        features={
            "size": NumericFeature(column="Größe\n(cm)", side="item"),
            "item": IdFeature(column="Nr", side="item"),
            "age": NumericFeature(side="user"),
        }
    )
    encoder = FeatureEncoder.fit(schema, [pa.table({"Größe\n(cm)": [1.5, 2.5], "Nr": ["a", "b"], "age": [1.0, 2.0]})])
    decoder = RequestDecoder(encoder)
    decoded = decode(RankRequest.parse({"candidates": [{"Nr": "z"}]}), decoder)

    found = FeatureWarnings(encoder).of_values(decoder.shared.encode(decoded.shared), decoder.own.encode(decoded.own))

    assert [warning.model_dump() for warning in found] == [
        {"feature": "size", "column": "Größe\n(cm)", "code": "missing", "count": 1},
        {"feature": "item", "column": "Nr", "code": "unknown", "count": 1},
        {"feature": "age", "code": "missing", "count": 1},
    ]


def test_item_without_a_finite_score_stands_last_with_a_warning(bundle: ModelBundle) -> None:
    scores = {"scores": {"odd": "log(ctr - CTR)"}}
    flat = Ranker.load(bundle)
    ctr = [item.tasks["ctr"] for item in flat.rank(request(score="ctr")).items]
    middle = (ctr[2] + ctr[3]) / 2
    scores["scores"]["odd"] = f"log(ctr - {middle})"
    config = {**bundle.config, "ranking": scores}
    ranker = Ranker(ModelBundle(**{**vars(bundle), "config": config}))

    response = ranker.rank(request())

    assert [item.score is None for item in response.items] == [False] * 3 + [True] * 3
    assert [item.item_id for item in response.items[3:]] == sorted(item.item_id for item in response.items[3:])
    assert [(warning.code, warning.count) for warning in response.warnings] == [("not_finite", 3)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": ["ctr", "cvrr"]}, r"tasks\[1\]: unknown task cvrr, did you mean cvr\?"),
        ({"score": "profits"}, r"score: unknown score profits, did you mean profit\?"),
        ({"candidates": []}, "candidates: there are none"),
        ({"candidates": {"item_id": list(range(100_000))}}, "candidates: 100000 given, at most 10000"),
    ],
)
def test_request_that_the_model_cannot_answer_is_refused(ranker: Ranker, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        ranker.rank(request(**changes))


def test_flat_rows_score_as_the_model_predicts(ranker: Ranker, bundle: ModelBundle, shop_log: pa.Table) -> None:
    predictions_NT = ranker.score(shop_log)

    np.testing.assert_allclose(predictions_NT, bundle.predict(shop_log), atol=1e-6)
    np.testing.assert_allclose(ranker.combine(predictions_NT, score="ctr"), predictions_NT[:, 0], atol=1e-7)
    assert ranker.score(shop_log.slice(0, 0)).shape == (0, 3)


def test_bundle_that_scores_differently_is_refused_by_task(bundle: ModelBundle) -> None:
    replay = bundle.replay
    predictions_NT = replay.predictions_NT.copy()
    predictions_NT[5, 1] += 1e-4
    changed = type(replay)(replay.rows, replay.task_names, predictions_NT, replay.encoded)

    with pytest.raises(BundleError, match="replay: task cvr differs from the training model by more than 1e-05: row 5"):
        Ranker.load(ModelBundle(**{**vars(bundle), "replay": changed}))


@pytest.mark.skipif(not has_fast_bf16(torch.device("cpu")), reason="the processor has no bf16 arithmetic")
def test_bf16_ranks_within_its_tolerance_over_the_same_tables(bundle: ModelBundle) -> None:
    exact, reduced = Ranker.load(bundle), Ranker.load(bundle, precision="bf16")

    found, expected = ({item.item_id: item.tasks for item in one.rank(request()).items} for one in (reduced, exact))

    differences = [abs(found[item][task] - expected[item][task]) for item in expected for task in expected[item]]
    assert 0 < max(differences) < TOLERANCES["bf16"]
    assert all(weight.dtype == torch.float32 for weight in bundle.model.parameters())


def test_bf16_beyond_its_tolerance_is_refused(bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recmoe.ranking.precision.has_fast_bf16", lambda _: True)
    monkeypatch.setitem(TOLERANCES, "bf16", 1e-7)

    with pytest.raises(BundleError, match="differs from the training model by more than 1e-07"):
        Ranker.load(bundle, precision="bf16")


def test_bf16_without_hardware_is_refused(bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recmoe.ranking.precision.has_fast_bf16", lambda _: False)

    with pytest.raises(ServingError, match="this processor has no bf16 arithmetic; use precision fp32"):
        Ranker(bundle, precision="bf16")


def test_bad_request_of_several_fails_alone(ranker: Ranker) -> None:
    requests = [request(3), request(score="profits"), request(user={"age": "old"}), request(2)]

    answers = ranker.rank_many(requests)

    assert [type(answer) for answer in answers] == [RankResponse, RequestError, RequestError, RankResponse]
    assert str(answers[2]).startswith("user.age: expected a finite number")
    for answer, alone in ((answers[0], requests[0]), (answers[3], requests[3])):
        assert isinstance(answer, RankResponse)
        assert [item.item_id for item in answer.items] == [item.item_id for item in ranker.rank(alone).items]
    assert all(isinstance(answer, RequestError) for answer in ranker.rank_many(requests[1:3]))


def test_encoder_that_reads_requests_otherwise_is_refused(bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumberColumns, "_dense", lambda self, x_FB: np.zeros((len(self.dense), x_FB.shape[1]), "f4"))

    with pytest.raises(BundleError, match="replay: rows are encoded otherwise in requests than in training"):
        Ranker.load(bundle)


@pytest.mark.parametrize(
    ("scores", "message"),
    [(3, "scores: Input should be a valid dictionary"), ({"profit": "clicks * 2"}, "unknown task clicks")],
)
def test_bundle_with_an_invalid_ranking_section_is_refused(bundle: ModelBundle, scores: object, message: str) -> None:
    config = {**bundle.config, "ranking": {"scores": scores}}

    with pytest.raises(BundleError, match=f"bundle shop: its ranking section is not valid: .*{message}"):
        Ranker(ModelBundle(**{**vars(bundle), "config": config}))


def test_user_side_is_looked_up_once(ranker: Ranker, bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    tables = bundle.model.input_layer.tables
    look_up = tables.look_up

    def counted(batch: Batch, keys: Any = None) -> Any:
        rows.append(batch.num_rows)
        return look_up(batch, keys)

    monkeypatch.setattr(tables, "look_up", counted)

    ranker.rank(request(50))

    assert rows == [1, 50]


def test_id_beyond_its_table_is_the_fault_of_the_request(shop_log: pa.Table, bundle: ModelBundle) -> None:
    hour = {"kind": "id", "side": "context", "encoding": {"kind": "index", "num_ids": 24}}
    features = {**bundle.config["inputs"]["features"], "hour": hour}
    schema = FeatureSchema.model_validate({**bundle.config["inputs"], "features": features})
    ranker = Ranker(ModelBundle(**{**vars(bundle), "encoder": FeatureEncoder.fit(schema, [shop_log])}))

    with pytest.raises(RequestError, match=r"user: .*hour.*24"):
        ranker.rank(request(context={"hour": 24}))
