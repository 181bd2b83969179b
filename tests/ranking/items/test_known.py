"""Products that are kept give the predictions of the whole computation, whatever the model does with its input."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from recmoe.export.bundle import ModelBundle, write_bundle
from recmoe.export.replay import Replay
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.layout import OWN_SIDES, SHARED_SIDES
from recmoe.features.schema import FeatureSchema
from recmoe.model.known_items import KnownCandidates
from recmoe.moe.known import KnownRows
from recmoe.ranking import Ranker, RankRequest
from recmoe.ranking.engine import build_engine
from recmoe.ranking.items import ArrowStore
from tests.ranking.drawn_models import model_of, small_config

BundleMaker = Callable[..., Path]

MMOE = {"kind": "mmoe", "num_experts": 3, "expert_hidden": [8]}
MODELS: dict[str, dict[str, Any]] = {
    "mmoe": {"architecture": MMOE},
    "no linear part": {"architecture": MMOE, "wide": {"kind": "none"}},
    "shared bottom": {"architecture": {"kind": "shared_bottom", "hidden": [8]}},
    "single task": {"architecture": {"kind": "single_task", "hidden": [8]}},
    "ple": {"architecture": {"kind": "ple", "expert_hidden": [8]}},
    "merged weights": {"architecture": {**MMOE, "mixes": "weights"}},
    "sparse gate": {"architecture": {**MMOE, "gate": {"kind": "top_k", "k": 1}}},
    "gate with a network": {"architecture": {**MMOE, "gate": {"kind": "mlp"}}},
    "gate that reads the id of items": {"architecture": {**MMOE, "gate": {"kind": "hash", "feature": "item_id"}}},
    "whole rows": {"architecture": {"kind": "home"}},
    "group of features": {
        "architecture": {"kind": "pepnet", "domain": "page", "personal": "who"},
        "groups": {"page": ["hour", "price"], "who": ["user_id", "item_id"]},
    },
    "trunk": {"architecture": MMOE, "trunk": {"kind": "rank_mixer", "tokens": 2}},
}
COMPUTED_EVERY_TIME = {
    "gate that reads the id of items",
    "group of features",
    "sparse gate",
    "trunk",
    "whole rows",
}
"""Models that ask for the own part of known items too."""


def integers(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("known", [[0, 1, 2, 3, 4, 5], [1, 4], []], ids=["all", "two", "none"])
def test_known_candidates_are_predicted_as_others(
    name: str, known: list[int], shop_encoder: FeatureEncoder, shop_config: dict[str, Any], shop_log: pa.Table
) -> None:
    model = model_of(MODELS[name], shop_encoder, shop_config["tasks"])
    shared = shop_encoder.encode(shop_log.slice(0, 2), sides=SHARED_SIDES, with_labels=False)
    rows = shop_log.slice(10, 6)
    own = shop_encoder.encode(rows, sides=OWN_SIDES, with_labels=False)
    request_C = torch.tensor([0, 0, 1, 1, 0, 1])
    others = [row for row in range(6) if row not in known]

    def items(places: torch.Tensor) -> Any:
        # Item n of the store is row 5 - n.
        return shop_encoder.encode(rows.take(pa.array(5 - places.numpy())), sides=OWN_SIDES, with_labels=False)

    with torch.inference_mode():
        expected = model.predict_sided(shared, own, request_C)
        first = shop_encoder.encode(shop_log.slice(7, 1), sides=SHARED_SIDES, with_labels=False)
        candidates = KnownCandidates(
            model.know_items(first, items, num_items=6),
            KnownRows(5 - integers(known), integers(known), integers(others)),
        )
        rest = shop_encoder.encode(rows.take(pa.array(others, pa.int64())), sides=OWN_SIDES, with_labels=False)
        found = model.predict_sided(shared, rest, request_C, candidates)

    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    # Where some are not known, what only those need is asked of them alone.
    assert bool(candidates.items.products.num_own_parts) == (name in COMPUTED_EVERY_TIME)


def test_model_that_reads_items_otherwise_is_told(
    tmp_path: Path,
    make_bundle: BundleMaker,
    shop_encoder: FeatureEncoder,
    shop_config: dict[str, Any],
    store_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = model_of(MODELS["sparse gate"], shop_encoder, shop_config["tasks"])
    path = make_bundle(tmp_path / "shop", model=model, config={**shop_config, "model": MODELS["sparse gate"]})

    ranker = Ranker.load(path, items=ArrowStore.open(store_path), items_known_bytes=2**20)

    assert ranker.items is not None
    assert ranker.items.num_known == 0
    assert [record.message for record in caplog.records] == [
        "this model is served without products of items that are kept: it reads the columns of items otherwise than "
        "in products with the whole input"
    ]


def test_engine_that_keeps_no_products_is_told(
    bundle: ModelBundle, store_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, ranker = Ranker(bundle), Ranker(bundle)
    ranker.engine = build_engine(bundle.model, records=True)
    store = ArrowStore.open(store_path)

    ranker, plain = (one.with_stores(items=store, items_known_bytes=2**20) for one in (ranker, plain))

    assert ranker.items is not None
    assert plain.items is not None
    assert ranker.items.num_known == 0 < plain.items.num_known
    assert [record.message for record in caplog.records] == [
        "this model is served without products of items that are kept: they are for the CPU, and it is ranked on cpu "
        "or in recorded passes"
    ]
    request = RankRequest.parse({"user": {"user_id": "u1"}, "candidates": [{"item_id": 101}, {"item_id": 110}]})
    for item, other in zip(ranker.rank(request).items, plain.rank(request).items, strict=True):
        assert (item.item_id, item.tasks) == (other.item_id, pytest.approx(other.tasks, abs=1e-6))


def test_model_whose_candidates_read_a_history_is_told(
    tmp_path: Path, shop_log: pa.Table, store_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = small_config(
        {
            "item_id": {"kind": "id"},
            "price": {"kind": "numeric"},
            "seen": {
                "kind": "sequence",
                "side": "user",
                "columns": {"item": {"column": "tags", "table": "item_id"}},
                "encoder": {"kind": "target_attention"},
            },
        },
        {"ctr": "click"},
    )
    encoder = FeatureEncoder.fit(FeatureSchema.model_validate(config["inputs"]), [shop_log])
    model = model_of(config["model"], encoder, config["tasks"])
    with torch.inference_mode():
        predictions_NT = model.predict(encoder.encode(shop_log, with_labels=False)).numpy()
    replay = Replay.capture(shop_log, encoder=encoder, task_names=("ctr",), predictions_NT=predictions_NT)
    write_bundle(
        tmp_path / "shop", name="shop", config=config, encoder=encoder, model=model, replay=replay, report=None
    )

    ranker = Ranker.load(tmp_path / "shop", items=ArrowStore.open(store_path), items_known_bytes=2**20)

    ranked, expected = (
        one.rank(RankRequest.parse({"user": {"tags": ["wool"]}, "candidates": candidates}))
        for one, candidates in (
            (ranker, [{"item_id": 102}, {"item_id": 103}]),
            (Ranker.load(tmp_path / "shop"), [{"item_id": 102, "price": 102 / 7}, {"item_id": 103, "price": 103 / 7}]),
        )
    )
    assert ranked.items == expected.items
    assert [record.message for record in caplog.records] == [
        "this model is served without products of items that are kept: its candidates read a history of the user"
    ]
