from typing import Any

import pyarrow as pa

from recmoe.features.schema import FeatureSchema
from recmoe.ranking.example import requests_of_rows

VALUES: dict[str, Any] = {
    "group": "visit",
    "item": "sku",
    "features": {
        "user": {"kind": "id", "side": "user"},
        "hour": {"kind": "numeric", "side": "context"},
        "cost": {"kind": "numeric", "side": "item", "column": "price"},
        "tags": {"kind": "id_list", "side": "item"},
    },
}
ROWS = pa.table(
    {
        "visit": [1, 1, 2, 2, 2],
        "user": ["a", "a", "a", None, None],
        "hour": [8.0, 8.0, 8.0, float("nan"), float("nan")],
        "sku": ["x", "y", "x", "y", "z"],
        "price": [1.5, None, 2.5, float("nan"), 3.5],
        "tags": [["t"], [], None, ["t", "u"], ["v"]],
        "click": [0, 1, 0, 1, 0],
    }
)


def test_consecutive_rows_of_one_list_user_and_context_are_one_request() -> None:
    requests = list(requests_of_rows(FeatureSchema.model_validate(VALUES), ROWS))

    assert requests == [
        {
            "user": {"user": "a"},
            "context": {"hour": 8.0},
            "candidates": [{"price": 1.5, "tags": ["t"], "sku": "x"}, {"tags": [], "sku": "y"}],
        },
        {"user": {"user": "a"}, "context": {"hour": 8.0}, "candidates": [{"price": 2.5, "sku": "x"}]},
        {
            "user": {},
            "context": {},
            "candidates": [{"tags": ["t", "u"], "sku": "y"}, {"price": 3.5, "tags": ["v"], "sku": "z"}],
        },
    ]


def test_log_without_its_groups_is_cut_by_user_and_context() -> None:
    requests = list(requests_of_rows(FeatureSchema.model_validate(VALUES), ROWS.drop_columns(["visit"])))

    assert [len(request["candidates"]) for request in requests] == [3, 2]


def test_column_that_two_features_read_is_sent_once() -> None:
    values = {"features": {"price": {"kind": "numeric"}, "cost": {"kind": "numeric", "column": "price"}}}

    (request,) = requests_of_rows(FeatureSchema.model_validate(values), ROWS.slice(0, 2))

    assert request == {"user": {}, "context": {}, "candidates": [{"price": 1.5}, {}]}
