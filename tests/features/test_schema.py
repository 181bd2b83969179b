"""Tests of what does not fit together in a schema."""

from typing import Any

import pytest

from recmoe.config import all_problems
from recmoe.features.schema import FeatureSchema

NAN = float("nan")


def _problems(**features: dict[str, Any]) -> list[tuple[str, str]]:
    return all_problems(FeatureSchema.model_validate({"features": features}))


def test_schema_without_problems_has_none() -> None:
    shared = {"table": "items", "encoding": {"kind": "hash"}, "width": 8}

    assert not _problems(
        item={"kind": "id", **shared},
        bought={"kind": "id_list", "pooling": "sum", **shared},
        price={"kind": "numeric", "clip": [0, 9], "buckets": {"kind": "given", "boundaries": [1, 2]}},
    )


def test_schema_needs_a_feature() -> None:
    assert _problems() == [("features", "at least one feature is needed")]


@pytest.mark.parametrize(
    ("fields", "key", "message"),
    [
        ({"encoding": {"kind": "hash"}}, "encoding", "shares table t with a, so its encoding must be the same"),
        ({"width": 3}, "width", "shares table t with a, so its width must be the same"),
        ({"pooling": "sum"}, "pooling", "shares table t, so its pooling must be the same as the others'"),
        ({"separator": ""}, "separator", "a separator needs a character; columns that hold lists need no separator"),
    ],
)
def test_features_of_one_table_must_agree(fields: dict[str, Any], key: str, message: str) -> None:
    first = {"kind": "id_list", "table": "t"}

    assert _problems(a=first, b={**first, **fields}) == [(f"features.b.{key}", message)]


def test_name_of_a_table_has_no_hash_sign() -> None:
    problems = _problems(**{"a#bucket": {"kind": "id"}})

    assert problems == [
        ("features.a#bucket.table", "table a#bucket may not contain #, which marks the buckets of numbers")
    ]


@pytest.mark.parametrize(
    ("fields", "key", "message"),
    [
        ({"forms": []}, "forms", "at least one of value, bucket, vector is needed"),
        ({"forms": ["value", "value"]}, "forms", "the same form is given twice"),
        ({"clip": [2, 2]}, "clip", "the smallest value must be below the largest, got [2.0, 2.0]"),
        ({"clip": [NAN, 2]}, "clip", "the smallest value must be below the largest, got [nan, 2.0]"),
        ({"missing": NAN}, "missing", "the number that stands for null must be finite, got nan"),
        (
            {"buckets": {"kind": "given", "boundaries": [2, 1]}},
            "buckets.boundaries",
            "boundaries must increase strictly, got [2.0, 1.0]",
        ),
        (
            {"buckets": {"kind": "given", "boundaries": [1, float("inf")]}},
            "buckets.boundaries",
            "boundaries must be finite, got [1.0, inf]",
        ),
    ],
)
def test_number_that_does_not_make_sense_is_named(fields: dict[str, Any], key: str, message: str) -> None:
    assert _problems(x={"kind": "numeric", **fields}) == [(f"features.x.{key}", message)]


def test_pooling_of_a_table_is_that_of_its_lists() -> None:
    schema = FeatureSchema.model_validate(
        {"features": {"a": {"kind": "id", "table": "t"}, "b": {"kind": "id_list", "table": "t"}, "c": {"kind": "id"}}}
    )

    assert {table: spec.pooling for table, spec in schema.tables().items()} == {"t": "mean", "c": "sum"}
