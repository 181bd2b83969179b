"""Requests that do not fit are refused with the path of the field."""

import gc
import json
import math
from typing import Any

import numpy as np
import orjson
import pytest

from recmoe.errors import RequestError
from recmoe.ranking.request import MAX_FIELDS, RankRequest, check_num_candidates
from recmoe.ranking.texts import shown


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


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"request_id": "\ud83d"}, "request_id"),
        ({"user": {"user_id": "a\udc00"}}, "user.user_id"),
        ({"user": {"interests": ["sport", ["\ud83d"]]}}, "user.interests[1][0]"),
        ({"candidates": [{"item_id": 1}, {"item_id": "\ud83d\ud83d"}]}, "candidates[1].item_id"),
        ({"candidates": {"item_id": ["a", "\udfff"]}}, "candidates.item_id[1]"),
        ({"tasks": ["\udbff"]}, "tasks[0]"),
    ],
)
def test_half_a_character_is_named_with_its_field(document: dict[str, Any], field: str) -> None:
    text = json.dumps({"candidates": [{}], **document})

    for form in (text, text.encode(), {"candidates": [{}], **document}):
        with pytest.raises(RequestError, match="holds half a character, ") as caught:
            RankRequest.parse(form)

        assert caught.value.field == field


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"user": {"\ud83d": 1}}, r"user.\ud83d"),
        ({"\ud83d": 1}, r"\ud83d"),
        ({"user": {"a": {"b\udc00": 1}}}, r"user.a.b\udc00"),
    ],
)
def test_half_a_character_in_a_name_is_written_as_an_escape(document: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestError, match="the name of this field holds half a character") as caught:
        RankRequest.parse(json.dumps({"candidates": [{}], **document}))

    assert caught.value.field == field


def test_half_a_character_written_as_bytes_is_no_json() -> None:
    with pytest.raises(RequestError, match="body: is not JSON: 'utf-8' codec can't decode"):
        RankRequest.parse(b'{"request_id": "\xed\xa0\xbd", "candidates": [{}]}')


def test_whole_emoji_is_a_name_like_any_other() -> None:
    request = RankRequest.parse(r'{"request_id": "\ud83d\ude00", "candidates": [{"\\ud83d": 1}]}')

    assert request.request_id == "😀"
    assert request.candidates == [{r"\ud83d": 1}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"request_id": "a" * 10**6}, 'request_id: string should have at most 1000 characters, found "aaa'),
        ({"tasks": ["ctr"] * 10**6}, "tasks: tuple should have at most 1000 items"),
        ({"tasks": [1] * 10**6}, "tasks.0: input should be a valid string, found 1"),
        ({"u" * 10**6: 1}, "unknown field uuu"),
        ({"candidates": {"a" * 10**6: 1}}, r"candidates\.aaa"),
    ],
)
def test_huge_text_is_refused_in_a_short_message(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        RankRequest.parse(json.dumps({"candidates": [{}], **changes}))

    assert len(str(caught.value)) < 400


LONG = "x" * 2**20


@pytest.mark.parametrize(
    ("text", "encoding", "user"),
    [
        ('{"user": {"a": "%s", "b": NaN}, "candidates": [{}]}', "utf-8", math.nan),
        ('{"user": {"a": "%s", "b": -Infinity}, "candidates": [{}]}', "utf-8", -math.inf),
        ('{"user": {"a": "%s", "b": 1}, "candidates": [{}]}', "utf-16", 1),
        ('{"user": {"a": "%s", "b": 1}, "candidates": [{}]}', "utf-8-sig", 1),
    ],
)
def test_large_document_of_what_the_fast_parser_does_not_take_is_read(text: str, encoding: str, user: float) -> None:
    request = RankRequest.parse((text % LONG).encode(encoding))

    np.testing.assert_equal(request.user["b"], user)


def test_half_a_character_of_a_large_document_is_told_by_its_place_without_reading_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = json.dumps({"user": {"a": LONG, "b": "\ud83d"}, "candidates": [{}]})
    monkeypatch.delattr("recmoe.ranking.document.json.loads")

    with pytest.raises(
        RequestError, match=rf"^body: holds half a character, at {text.index('ud83d') - 1}, without its"
    ):
        RankRequest.parse(text)


@pytest.mark.parametrize("place", [0, 1, 500, 99_998, 99_999])
def test_half_a_character_is_found_by_halving_and_not_value_by_value(
    place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = ["x"] * 100_000
    values[place] = "\udc00"
    written: list[int] = []
    dumps = orjson.dumps

    def counted(value: Any) -> bytes:
        written.append(len(value))
        return dumps(value)

    monkeypatch.setattr("recmoe.ranking.texts.orjson.dumps", counted)

    with pytest.raises(RequestError, match=rf"^candidates\.item_id\[{place}\]: holds half a character"):
        RankRequest.parse({"user": {"a": 10**30, "b": {1}}, "candidates": {"item_id": values}})

    assert len(written) < 40
    assert sum(written) < 2.5 * len(values)


def test_half_a_character_far_inside_is_named_by_where_that_begins() -> None:
    inside: Any = "\ud83d"
    for _ in range(20):
        inside = [inside]

    with pytest.raises(RequestError, match=r"^user\.a\[0\]\[0\]\[0\]\[0\]: holds half a character; send whole"):
        RankRequest.parse({"user": {"a": inside}, "candidates": [{}]})


def test_document_that_the_slow_parser_reads_may_be_nested_so_deep_and_no_deeper() -> None:
    def nested(depth: int) -> str:
        inside = "[" * depth + r'"\ud83d\ude00", NaN' + "]" * depth
        return '{"candidates": [{}], "user": {"a": ' + inside + "}}"

    assert RankRequest.parse(nested(100).encode()).num_candidates == 1
    with pytest.raises(RequestError, match=r"^body: is nested too deep; leave out what is no feature"):
        RankRequest.parse(nested(500).encode())


def test_no_garbage_is_collected_while_a_document_is_read() -> None:
    gc.collect()
    before = gc.get_stats()

    RankRequest.parse(b'{"candidates": [{}], "user": {"a": [' + b"[]," * 50_000 + b"[]]}}")

    after = gc.get_stats()
    assert sum(one["collections"] for one in after) - sum(one["collections"] for one in before) < 10
    assert gc.isenabled()


@pytest.mark.parametrize("text", ['{"user": "%s"', '{"user": "%s",}', '{"user": "%s", "a": Nan'])
def test_large_document_that_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=r"^body: is not JSON: "):
        RankRequest.parse(text % LONG)


@pytest.mark.parametrize("field", ["user", "context", "candidates"])
def test_object_of_too_many_fields_is_refused(field: str) -> None:
    fields = {str(number): [] for number in range(MAX_FIELDS + 1)}

    with pytest.raises(RequestError, match=f"^{field}: has 10001 fields, at most 10000 are read; leave out"):
        RankRequest.parse({"candidates": [{}], field: fields})


@pytest.mark.parametrize("candidates", [[{"a": 1}, {}, {"b": 2}], {"a": [1, 2, 3], "b": [None, None, 2]}])
def test_candidates_come_by_row_or_by_column(candidates: Any) -> None:
    request = RankRequest.parse({"candidates": candidates})

    assert request.num_candidates == 3


@pytest.mark.parametrize("candidates", [[], {}, {"a": []}])
def test_no_candidates_are_refused(candidates: Any) -> None:
    request = RankRequest.parse({"candidates": candidates})

    with pytest.raises(RequestError, match="candidates: there are none; give at least one"):
        check_num_candidates(request.num_candidates, 10)


def test_too_many_candidates_are_refused_with_the_limit() -> None:
    request = RankRequest.parse({"candidates": [{}] * 100_000})

    with pytest.raises(RequestError, match="candidates: 100000 given, at most 10000 are ranked in one request"):
        check_num_candidates(request.num_candidates, 10_000)


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
