"""Requests that do not fit are refused with the path of the field."""

import json
from typing import Any

import pytest

from recmoe.errors import RequestError
from recmoe.ranking.request import RankRequest, shown


@pytest.mark.parametrize(
    ("document", "field", "message"),
    [
        ("{", "body", "is not JSON: Expecting property name"),
        (b"\xff{}", "body", "is not JSON"),
        ("[" * 100_000, "body", "is not JSON"),
        ([], "body", "expected an object, found a list"),
        ({}, "candidates", "field required"),
        ({"candidates": 7}, "candidates", "expected a list of objects or an object of lists, found 7"),
        ({"candidates": [{}, "x"]}, "candidates[1]", 'expected an object, found "x"'),
        ({"candidates": {"a": 3}}, "candidates.a", "expected a list, found 3"),
        (
            {"candidates": {"a": [1, 2], "b": [1]}},
            "candidates.b",
            "has 1 values, a has 2; give one per candidate",
        ),
        ({"candidates": [{}], "topk": 3}, "topk", "unknown field topk, did you mean top_k?"),
        ({"candidates": [{}], "top_k": 0}, "top_k", "input should be greater than 0, found 0"),
        ({"candidates": [{}], "user": [1]}, "user", "input should be a valid dictionary, found a list"),
        ({"candidates": [{}], "tasks": ["ctr", 3]}, "tasks.1", "input should be a valid string, found 3"),
    ],
)
def test_request_that_does_not_fit_names_the_field(document: Any, field: str, message: str) -> None:
    text = document if isinstance(document, str | bytes) else json.dumps(document)

    with pytest.raises(RequestError) as caught:
        RankRequest.parse(text)

    assert caught.value.field == field
    assert message in str(caught.value)


@pytest.mark.parametrize("candidates", [[{"a": 1}, {}, {"b": 2}], {"a": [1, 2, 3], "b": [None, None, 2]}])
def test_candidates_come_by_row_or_by_column(candidates: Any) -> None:
    request = RankRequest.parse({"candidates": candidates})

    assert request.num_candidates == 3


@pytest.mark.parametrize("candidates", [[], {}, {"a": []}])
def test_no_candidates_are_refused(candidates: Any) -> None:
    request = RankRequest.parse({"candidates": candidates})

    with pytest.raises(RequestError, match="candidates: there are none; give at least one"):
        request.limited_to(10)


def test_too_many_candidates_are_refused_with_the_limit() -> None:
    request = RankRequest.parse({"candidates": [{}] * 100_000})

    with pytest.raises(RequestError, match="candidates: 100000 given, at most 10000 are ranked in one request"):
        request.limited_to(10_000)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        ("é" * 50, '"' + "é" * 36 + "..."),
        (None, "null"),
        ({"a": 1}, "an object"),
        (True, "true"),
    ],
)
def test_values_are_shown_as_json_writes_them(value: Any, text: str) -> None:
    assert shown(value) == text
