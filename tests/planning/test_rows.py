import pytest

from recmoe.config import config_from_dict
from recmoe.errors import SchemaError
from recmoe.features.schema import FeatureSchema
from recmoe.planning.rows import frequent_first, ids_per_row, planned_layout, tables_without_rows, with_rows

SCHEMA = config_from_dict(
    FeatureSchema,
    {
        "width": 8,
        "features": {
            "user_id": {"kind": "id", "side": "user"},
            "device": {"kind": "id", "encoding": {"kind": "hash", "num_buckets": 100}},
            "item_id": {"kind": "id", "width": 32},
            "history": {"kind": "id_list", "table": "item_id", "width": 32, "max_length": 5},
            "tags": {"kind": "id_list", "encoding": {"kind": "index", "num_ids": 7}},
            "video": {"kind": "id", "encoding": {"kind": "dynamic", "capacity": 50}},
            "price": {
                "kind": "numeric",
                "forms": ["value", "bucket", "vector"],
                "buckets": {"kind": "quantile", "count": 20},
            },
            "age": {"kind": "numeric", "forms": ["vector"], "buckets": {"kind": "given", "boundaries": [18, 30]}},
        },
    },
)


def test_row_counts_make_the_layout_without_a_log() -> None:
    layout = planned_layout(SCHEMA, {"user_id": 1000, "item_id": 10_000_000_000})

    assert [(spec.name, spec.num_rows, spec.width, spec.keys) for spec in layout.tables] == [
        ("user_id", 1001, 8, ("user_id",)),
        ("device", 101, 8, ("device",)),
        ("item_id", 10_000_000_001, 32, ("item_id", "history")),
        ("tags", 8, 8, ("tags",)),
        ("video", 51, 8, ("video",)),
        ("price#bucket", 21, 8, ("price#bucket",)),
    ]
    assert [(column.name, column.num_buckets) for column in layout.dense] == [
        ("price", 0),
        ("price#position", 20),
        ("age#position", 3),
    ]


def test_only_vocabularies_need_a_count() -> None:
    assert tables_without_rows(SCHEMA, {}) == ["user_id", "item_id"]
    assert tables_without_rows(SCHEMA, {"item_id": 5}) == ["user_id"]


def test_count_of_no_table_is_an_error() -> None:
    with pytest.raises(SchemaError, match=r"--rows itm_id: there is no such table of ids, did you mean item_id\?"):
        tables_without_rows(SCHEMA, {"itm_id": 5})


def test_counts_replace_those_of_a_learnt_layout() -> None:
    learnt = planned_layout(SCHEMA, {"user_id": 10, "item_id": 20})

    layout = with_rows(learnt, {"item_id": 50})

    assert [spec.num_rows for spec in layout.tables] == [11, 101, 51, 8, 51, 21]


def test_only_vocabularies_stand_in_the_order_of_frequency() -> None:
    assert frequent_first(SCHEMA) == {"user_id", "item_id"}


def test_lists_have_the_ids_that_are_said_and_ten_otherwise() -> None:
    counts = ids_per_row(SCHEMA, {"tags": 3.5})

    assert counts == {
        "user_id": 1,
        "device": 1,
        "item_id": 1,
        "history": 5,
        "tags": 3.5,
        "video": 1,
        "price#bucket": 1,
    }


def test_ids_per_row_of_no_list_are_an_error() -> None:
    with pytest.raises(
        SchemaError, match=r"--ids-per-row item_id: there is no such id_list feature; there are: history, tags"
    ):
        ids_per_row(SCHEMA, {"item_id": 3})


def test_history_counts_as_the_lists_that_it_reads() -> None:
    columns = {"item": {"column": "seen", "table": "item_id"}, "shop": {"column": "shops", "width": 4}}
    features = {"item_id": {"kind": "id", "width": 32}, "history": {"kind": "sequence", "columns": columns}}
    schema = config_from_dict(FeatureSchema, {"width": 8, "features": features})

    layout = planned_layout(schema, {"item_id": 10, "history#shop": 5})

    assert tables_without_rows(schema, {}) == ["item_id", "history#shop"]
    assert [(spec.name, spec.num_rows, spec.width) for spec in layout.tables] == [
        ("item_id", 11, 32),
        ("history#shop", 6, 4),
    ]
    assert ids_per_row(schema, {"history": 30}) == {"item_id": 1.0, "history#item": 30, "history#shop": 30}
    assert ids_per_row(schema, {}) == {"item_id": 1.0, "history#item": 10.0, "history#shop": 10.0}
