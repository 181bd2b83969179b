"""A store is whole or refused, and says by column and row what of a table it cannot take."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from torch import Tensor

from recmoe.errors import DataError, SchemaError, ServingError, StoreError
from recmoe.export.bundle import ModelBundle
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.kinds import NumericFeature
from recmoe.features.schema import FeatureSchema
from recmoe.moe.known import KnownProducts
from recmoe.ranking import Ranker, RankRequest
from recmoe.ranking.items import ArrowStore, arrow_store


def with_column(items: pa.Table, name: str, values: Any, kind: pa.DataType | None = None) -> pa.Table:
    return items.set_column(items.column_names.index(name), name, pa.array(values, kind))


def test_ids_are_found_whatever_their_type(store_path: Path) -> None:
    store = ArrowStore.open(store_path)

    assert store.num_rows == 31
    assert store.look_up(pa.array([101, 7, 100, 999])).places_C.tolist() == [0, -1, 15, 30]
    assert store.look_up(pa.array(["101", "007", "999"])).places_C.tolist() == [0, -1, 30]
    assert store.rows.column_names == ["item_id", "title", "words", "price"]


def test_table_that_is_none_of_items_is_refused_by_column_and_row(
    tmp_path: Path, shop_items: pa.Table, shop_encoder: FeatureEncoder
) -> None:
    ids = shop_items["item_id"].to_pylist()
    prices = [str(price) for price in shop_items["price"].to_pylist()]
    cases: list[tuple[pa.Table, type[Exception], str]] = [
        (shop_items.slice(0, 0), DataError, "the table of items has no rows; give one row per item"),
        (shop_items.rename_columns({"item_id": "itemid"}), SchemaError, "column 'item_id' is missing, needed by the "
         "store of items, as the id of a row; did you mean 'itemid'"),
        (with_column(shop_items, "item_id", [*ids[:4], None, *ids[5:]]), DataError,
         "column 'item_id', row 4: an item without an id; leave the row out"),
        (with_column(shop_items, "item_id", [*ids[:4], ids[1], *ids[5:]]), DataError,
         "column 'item_id': rows 1 and 4 are of one item, 103; keep one row per item"),
        (with_column(shop_items, "item_id", [101, 101, 101, *ids[3:]]), DataError,
         "rows 0 and 1 are of one item, 101, and 1 more rows are of items seen before; keep one row per item"),
        (with_column(shop_items, "item_id", [str(n) for n in ids[:9]] + ["x9"] + [str(n) for n in ids[10:]]),
         DataError, "column 'item_id', row 9: 'x9' cannot be read as int64, which it was in training; mend the value"),
        (with_column(shop_items, "price", prices), SchemaError,
         "column 'price' of feature 'price': expected a number, found string"),
        (shop_items.select(["item_id", "title"]), SchemaError,
         r"none of the columns that the model reads of an item is there \(item_id, price, words\); found: item_id, t"),
    ]  # fmt: skip

    for items, kind, message in cases:
        with pytest.raises(kind, match=message):
            ArrowStore.build(tmp_path / "items", items, shop_encoder)
    assert list(tmp_path.iterdir()) == []


def test_model_without_an_item_column_has_no_store(tmp_path: Path) -> None:
    log = pa.table({"price": [1.0, 2.0]})
    encoder = FeatureEncoder.fit(FeatureSchema(features={"price": NumericFeature()}), [log])

    with pytest.raises(SchemaError, match=r"which column names an item, so none can be looked up; set inputs\.item"):
        ArrowStore.build(tmp_path / "items", log, encoder)


def test_build_replaces_a_store_and_nothing_else(
    tmp_path: Path, shop_items: pa.Table, shop_encoder: FeatureEncoder
) -> None:
    first = ArrowStore.build(tmp_path / "items", shop_items, shop_encoder)

    second = ArrowStore.build(tmp_path / "items", shop_items.slice(0, 3), shop_encoder)

    assert (first.num_rows, second.num_rows) == (31, 3)
    # What is mapped stays as it was.
    assert first.look_up(pa.array([999])).places_C.tolist() == [30]
    (tmp_path / "items" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="items: holds something else than a store of items; give a new folder"):
        ArrowStore.build(tmp_path / "items", shop_items, shop_encoder)


def test_store_that_was_replaced_is_read_as_it_was(
    tmp_path: Path, shop_items: pa.Table, bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, request = tmp_path / "items", RankRequest.parse({"candidates": {"item_id": [101, 100]}})
    first = ArrowStore.build(folder, shop_items, bundle.encoder)
    before = Ranker.load(bundle, items=first).rank(request)
    dearer = with_column(shop_items, "price", [500.0] * shop_items.num_rows)

    second = ArrowStore.build(folder, dearer, bundle.encoder)

    assert first.latest() == second.identity
    assert Ranker.load(bundle, items=first).rank(request).items == before.items
    assert Ranker.load(bundle, items=first.reopened()).rank(request).items != before.items
    mapped, num_mapped = arrow_store.mapped, []

    def replaced_meanwhile(path: Path, *arguments: Any) -> Any:
        num_mapped.append(path)
        if len(num_mapped) == 1:
            ArrowStore.build(folder, shop_items, bundle.encoder)
        return mapped(path, *arguments)

    monkeypatch.setattr(arrow_store, "mapped", replaced_meanwhile)
    with pytest.raises(StoreError, match="items: was replaced while it was opened; try again"):
        second.reopened()
    assert second.reopened().num_rows == 31


def test_folder_that_is_no_store_or_damaged_is_refused(
    tmp_path: Path, shop_items: pa.Table, bundle: ModelBundle
) -> None:
    folder = tmp_path / "items"
    with pytest.raises(DataError, match="items: is no store of items; make one of a table by recmoe items build"):
        ArrowStore.open(folder)
    ArrowStore.build(folder, shop_items, bundle.encoder)

    def damaged(name: str, content: bytes) -> str:
        before = (folder / name).read_bytes()
        # A file of another inode: what other tests have mapped stays.
        (folder / name).unlink()
        (folder / name).write_bytes(content)
        with pytest.raises(DataError) as caught:
            Ranker.load(bundle, items=ArrowStore.open(folder))
        (folder / name).write_bytes(before)
        return str(caught.value)

    about = json.loads((folder / "store.json").read_text())
    assert "version 9, this recmoe reads 2; build it again" in damaged(
        "store.json", json.dumps({**about, "version": 9}).encode()
    )
    assert "keys.bin has 8 bytes, not 248" in damaged("keys.bin", b"12345678")
    assert "its rows are not those of store.json" in damaged(
        "store.json", json.dumps({**about, "column": "sku"}).encode()
    )
    records = (folder / "encoded" / "rows.bin").read_bytes()
    assert "30 encoded rows of 31; build it again" in damaged("encoded/rows.bin", records[: len(records) // 31 * 30])
    assert "its lists end elsewhere than its rows" in damaged("encoded/list_0.bin", b"1234")
    changed = np.frombuffer(records, np.uint8).copy()
    changed[-2] ^= 64
    assert "its rows are encoded otherwise than in training; build it again" in damaged(
        "encoded/rows.bin", changed.tobytes()
    )
    assert Ranker.load(bundle, items=ArrowStore.open(folder)).items is not None


def test_store_of_another_item_column_is_refused(tmp_path: Path, shop_items: pa.Table, bundle: ModelBundle) -> None:
    folder = tmp_path / "items"
    ArrowStore.build(folder, shop_items, bundle.encoder)
    about = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps({**about, "column": "title"}))

    with pytest.raises(DataError, match="its items are named by column 'title', the model's by 'item_id'; build it"):
        Ranker.load(bundle, items=ArrowStore.open(folder))


def test_products_that_change_predictions_are_refused(
    bundle: ModelBundle, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = KnownProducts.of

    def doubled(products: KnownProducts, weight_OD: Tensor, items_H: Tensor) -> Tensor | None:
        found_HO = of(products, weight_OD, items_H)
        return None if found_HO is None else 2 * found_HO

    monkeypatch.setattr(KnownProducts, "of", doubled)

    with pytest.raises(ServingError, match=r"change predictions by \d.*, which may be 1e-05; serve without them"):
        Ranker.load(bundle, items=ArrowStore.open(store_path), items_known_bytes=2**20)


def test_what_cannot_be_known_is_told(
    tmp_path: Path, bundle: ModelBundle, shop_items: pa.Table, store_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ArrowStore.build(tmp_path / "items", shop_items.drop_columns(["words"]), bundle.encoder)

    few = Ranker.load(bundle, items=ArrowStore.open(store_path), items_known_bytes=7)
    lacking = Ranker.load(bundle, items=ArrowStore.open(tmp_path / "items"), items_known_bytes=2**20)

    assert few.items is not None
    assert lacking.items is not None
    assert (few.items.num_known, lacking.items.num_known) == (0, 0)
    assert [record.message for record in caplog.records] == [
        "7 bytes are too few for the products of one item; none is kept",
        "this model is served without products of items that are kept: requests give words, which the store does not "
        "hold",
    ]
