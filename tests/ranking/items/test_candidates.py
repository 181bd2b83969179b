"""A request with ids alone ranks as one with all columns: bit by bit, or within 1e-5 with products that are kept."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recmoe.errors import RequestError
from recmoe.export.bundle import ModelBundle
from recmoe.features.encoder import FeatureEncoder
from recmoe.ranking import Ranker, RankRequest
from recmoe.ranking.items import ArrowStore, RowStore
from recmoe.ranking.look_ups import LookUps
from recmoe.ranking.precision import TOLERANCES
from recmoe.ranking.ranked import Ranked
from recmoe.ranking.request import ColumnRequest, RankOptions, RankResponse
from recmoe.runs.stores import write_store

USER = {"user": {"user_id": "u3", "tags": ["wool"], "age": 40}, "context": {"hour": 12}}
ALL_BYTES = 2**20


@pytest.fixture(scope="module")
def plain(bundle: ModelBundle) -> Ranker:
    """Has no store."""
    return Ranker.load(bundle)


@pytest.fixture(
    scope="module",
    params=itertools.product(["files", "Redis"], [0, 5, 31]),
    ids=lambda param: f"{param[1]} known, in {param[0]}",
)
def ranker(request: pytest.FixtureRequest, bundle: ModelBundle, store_path: Path, shop_items: pa.Table) -> Ranker:
    """Has a store in files or in Redis, and knows the products of some of its items."""
    place, num_known = request.param
    store: RowStore = ArrowStore.open(store_path)
    if place == "Redis":
        url = request.getfixturevalue("redis_of_all").url(prefix="candidates")
        store = write_store(url, shop_items, bundle.encoder, "item")
    ranker = Ranker.load(bundle, items=store, items_known_bytes=bytes_of(bundle, store, num_known))
    assert ranker.items is not None
    assert ranker.items.num_known == num_known
    return ranker


def bytes_of(bundle: ModelBundle, store: RowStore, num_items: int) -> int:
    """What some items of the shop take: their products, and the rows and ids of those that lie elsewhere."""
    if not num_items:
        return 0
    items = Ranker.load(bundle, items=store, items_known_bytes=ALL_BYTES).items
    assert items is not None
    assert items.known is not None
    assert items.at_hand is not None
    own = 0 if items.encoded is not None else int(items.at_hand.bytes_up_to()[num_items - 1]) + 16 * num_items
    return num_items * items.known.num_bytes // 31 + own


def ask(ranker: Ranker, candidates: Any) -> RankResponse:
    return ranker.rank(RankRequest.parse({**USER, "candidates": candidates}))


def rows_of(items: pa.Table, ids: list[int]) -> list[dict[str, Any]]:
    """Candidates as a request without a store gives them."""
    by_id = {row["item_id"]: row for row in items.drop_columns(["title"]).to_pylist()}
    return [by_id[number] for number in ids]


def assert_ranks_alike(ranker: Ranker, found: RankResponse, expected: RankResponse) -> None:
    tasks = {item.item_id: item.tasks for item in found.items}
    assert ranker.items is not None
    if ranker.items.num_known == 0:
        assert [(item.item_id, item.score, item.tasks) for item in found.items] == [
            (item.item_id, item.score, item.tasks) for item in expected.items
        ]
    else:
        assert tasks.keys() == {item.item_id for item in expected.items}
        for item in expected.items:
            assert tasks[item.item_id] == pytest.approx(item.tasks, abs=1e-5)
    assert found.warnings == expected.warnings


@pytest.mark.parametrize("by_column", [False, True], ids=["by candidate", "by column"])
def test_ids_alone_rank_as_all_columns(ranker: Ranker, plain: Ranker, shop_items: pa.Table, by_column: bool) -> None:
    ids = [100, 129, 105, 106, 103, 999, 101]

    found = ask(ranker, {"item_id": ids} if by_column else [{"item_id": number} for number in ids])

    assert_ranks_alike(ranker, found, ask(plain, rows_of(shop_items, ids)))
    codes = {(warning.feature, warning.code): warning.count for warning in found.warnings}
    assert codes == {
        ("item_id", "unknown"): 1,
        ("words", "missing"): 1,
        ("words", "unknown"): 3,
        ("price", "missing"): 1,
    }


def test_candidates_of_columns_stay_where_the_request_has_them(
    ranker: Ranker, plain: Ranker, shop_items: pa.Table
) -> None:
    ids, prices = [104, 777, 100, 129, 101], [None, 5.0, None, 2.5, None]
    options = RankOptions.model_validate(USER)
    columns = {"item_id": pa.array(ids), "price": pa.array(prices, pa.float64())}

    (found,) = ranker.rank_columns([ranker.decode(ColumnRequest(options, columns, num_candidates=5))])

    given = [*rows_of(shop_items, [104]), {"item_id": 777, "price": 5.0}, *rows_of(shop_items, [100, 129, 101])]
    given[3]["price"] = 2.5
    expected = ask(plain, given)
    by_id = {item.item_id: item.tasks for item in expected.items}
    assert isinstance(found, Ranked)
    assert found.look_ups["items"]._replace(num_cached=0) == LookUps(num_hits=4, num_misses=1)
    for number, row_T in zip(ids, found.predictions_CT.tolist(), strict=True):
        assert dict(zip(found.task_names, row_T, strict=True)) == pytest.approx(by_id[number], abs=1e-5)
    assert [item.item_id for item in found.items()] == [item.item_id for item in expected.items]


def test_what_a_candidate_gives_wins_over_the_store(ranker: Ranker, plain: Ranker, shop_items: pa.Table) -> None:
    ids = [101, 102, 129, 104]
    given = [{"price": 3}, {"words": ["blue"]}, {"price": None}, {}]
    expected = [{**row, **changes} for row, changes in zip(rows_of(shop_items, ids), given, strict=True)]
    # Null is nothing given.
    expected[2]["price"] = 129 / 7

    found = ask(ranker, [{"item_id": number, **changes} for number, changes in zip(ids, given, strict=True)])

    assert_ranks_alike(ranker, found, ask(plain, expected))


def test_item_that_is_not_in_the_store_is_ranked_by_its_id_and_told(ranker: Ranker, plain: Ranker) -> None:
    found = ask(ranker, {"item_id": [7, 101, 8]})

    alone = ask(plain, [{"item_id": 7}])
    assert {item.item_id: item.tasks["ctr"] for item in found.items}[7] == pytest.approx(alone.items[0].tasks["ctr"])
    told, *others = [(warning.feature, warning.code, warning.count) for warning in found.warnings]
    assert told == ("item_id", "not_in_store", 2)
    assert others == [("item_id", "unknown", 2), ("words", "missing", 2), ("price", "missing", 2)]


def test_items_of_the_store_are_explained_as_whole_candidates(
    ranker: Ranker, plain: Ranker, shop_items: pa.Table
) -> None:
    ids = [104, 777, 100, 129, 105, 101]
    given = {129: {"price": 2.5}, 777: {"price": 5.0}}
    whole = [*rows_of(shop_items, [104]), {"item_id": 777}, *rows_of(shop_items, [100, 129, 105, 101])]
    candidates = [{"item_id": number} for number in ids]
    for one in (*whole, *candidates):
        one |= given.get(one["item_id"], {})

    found, expected = (
        one.rank(RankRequest.parse({**USER, "candidates": rows, "explain": True, "top_k": 5}))
        for one, rows in ((ranker, candidates), (plain, whole))
    )

    by_id = {item.item_id: item.explanation for item in expected.items}
    assert len(found.items) == 5
    for item in found.items:
        other = by_id[item.item_id]
        assert item.explanation is not None
        assert other is not None
        for gate, other_gate in zip(item.explanation.gates, other.gates, strict=True):
            assert gate.weights == pytest.approx(other_gate.weights, abs=1e-5)
        for name, task in item.explanation.tasks.items():
            moves, others = ({one.feature: one.value for one in of.features} for of in (task, other.tasks[name]))
            assert moves == pytest.approx(others, abs=1e-5)


def test_requests_ranked_together_are_ranked_as_each_alone(ranker: Ranker) -> None:
    requests = [
        RankRequest.parse({**USER, "candidates": {"item_id": ids}, "user": {"user_id": user}})
        for user, ids in (("u1", [100, 101, 7]), ("u2", [129]), ("u3", [105, 7, 102, 103]))
    ]

    together = ranker.rank_many(requests)

    for response, request in zip(together, requests, strict=True):
        assert isinstance(response, RankResponse)
        alone = ranker.rank(request)
        assert [item.item_id for item in response.items] == [item.item_id for item in alone.items]
        assert response.warnings == alone.warnings
        for one, other in zip(response.items, alone.items, strict=True):
            assert one.tasks == pytest.approx(other.tasks, abs=1e-6)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([{"item_id": 100}, {"item_id": 101, "price": "dear"}], r"candidates\[1\]\.price: expected a finite number"),
        ({"item_id": [7, "x"]}, r"candidates\.item_id\[1\]: expected an integer"),
        ([{"item_id": 100}, {"price": 1}], r"candidates\[1\]\.item_id: is missing"),
    ],
)
def test_value_that_does_not_fit_is_named(ranker: Ranker, candidates: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        ask(ranker, candidates)


def test_columns_that_the_store_lacks_come_from_requests(
    tmp_path: Path, bundle: ModelBundle, plain: Ranker, shop_items: pa.Table, shop_encoder: FeatureEncoder
) -> None:
    ArrowStore.build(tmp_path / "items", shop_items.drop_columns(["price"]), shop_encoder)
    ranker = Ranker.load(bundle, items=ArrowStore.open(tmp_path / "items"))
    prices = {101: 5.0, 102: 7.5, 7: 1.0, 105: 2.0}
    expected = [{**row, "price": prices[row["item_id"]]} for row in rows_of(shop_items, [101, 102, 105])]

    found = ask(ranker, [{"item_id": number, "price": price} for number, price in prices.items()])

    assert ranker.items is not None
    assert ranker.items.lacking == ["price"]
    tasks = {item.item_id: item.tasks for item in found.items}
    for item in ask(plain, [*expected, {"item_id": 7, "price": 1.0}]).items:
        assert tasks[item.item_id] == item.tasks
    assert [(warning.feature, warning.code, warning.count) for warning in found.warnings][:2] == [
        ("item_id", "not_in_store", 1),
        ("item_id", "unknown", 1),
    ]


def test_known_products_need_no_look_up(bundle: ModelBundle, store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranker = Ranker.load(bundle, items=ArrowStore.open(store_path), items_known_bytes=ALL_BYTES)
    looked_up: list[int] = []
    tables = bundle.model.input_layer.tables
    look_up = tables.look_up
    monkeypatch.setattr(
        tables, "look_up", lambda batch, keys=None: looked_up.append(batch.num_rows) or look_up(batch, keys)
    )

    ask(ranker, {"item_id": [100, 101, 102]})

    assert looked_up == [1]


def test_room_for_products_is_not_exceeded(bundle: ModelBundle, redis_url: str, shop_items: pa.Table) -> None:
    store = write_store(redis_url, shop_items, bundle.encoder, "item")

    found = [
        Ranker.load(bundle, items=store, items_known_bytes=bytes_of(bundle, store, num) - less).items
        for num, less in ((7, 0), (7, 1), (1, 1))
    ]

    assert [items.num_known for items in found if items is not None] == [7, 6, 0]
    assert [items.at_hand and items.at_hand.num_rows for items in found if items is not None] == [7, 6, None]


def test_store_of_another_encoder_is_encoded_when_it_is_loaded(
    tmp_path: Path, shop_items: pa.Table, shop_log: pa.Table, shop_encoder: FeatureEncoder, store_path: Path
) -> None:
    fewer = FeatureEncoder.fit(shop_encoder.schema, [shop_log.slice(0, 50)])
    store = ArrowStore.build(tmp_path / "items", shop_items, fewer)
    places = np.arange(31)

    found, expected = (one.encoded(shop_encoder) for one in (store, ArrowStore.open(store_path)))

    assert store.fingerprint != shop_encoder.fingerprint
    assert (found.records_N == expected.records_N).all()
    assert (found.marks_NM == expected.marks_NM).all()
    assert found.rows(places).missing == expected.rows(places).missing == {"words": 1, "price": 1}


def test_known_products_in_bf16_stay_within_its_tolerance(
    bundle: ModelBundle, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Slow where the processor has no such arithmetic, and right all the same.
    monkeypatch.setattr("recmoe.ranking.precision.has_fast_bf16", lambda _: True)
    ids = {"item_id": [*range(100, 130), 999, 7]}

    store = ArrowStore.open(store_path)
    known, computed = (
        Ranker.load(bundle, precision="bf16", items=store, items_known_bytes=num) for num in (ALL_BYTES, 0)
    )

    assert known.items is not None
    assert known.items.num_known == 31
    expected = {item.item_id: item.tasks for item in ask(computed, ids).items}
    for item in ask(known, ids).items:
        assert item.tasks == pytest.approx(expected[item.item_id], abs=TOLERANCES["bf16"])
