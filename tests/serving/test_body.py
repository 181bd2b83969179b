"""A body is refused for the names that an object of it has before that object is made."""

import json
import random
from typing import Any

import pytest

from benchmarks.fuzz.reading import all_costly, read
from benchmarks.fuzz.valid import ValidRequests
from recmoe.client import ServedModel
from recmoe.errors import RequestError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking import Ranker
from serving.body import check_values, most_names
from serving.description import describe
from serving.settings import ServeSettings

MAX_VALUES = ServeSettings().max_values
ENDS = ["", ":", "{", '"', "\\", '}"', " "]


@pytest.mark.parametrize(
    ("text", "num_names"),
    [
        ("[]", 0),
        ("{}", 0),
        ('":::" ', 0),
        ('{"a": 1, "b": {"c": 1, "d": 2, "e": 3}, "f": 4}', 3),
        ('[{"a": {}, "b": {}, "c": {}}, {"a": 1}, {"b": 1}]', 3),
        ('{"a" : "{:", "b\\"": "\\\\", "c}": ["x:y"]}', 3),
    ],
)
def test_names_of_the_largest_object_are_counted(text: str, num_names: int) -> None:
    assert most_names(text.encode()) == num_names


def largest(value: Any) -> int:
    if isinstance(value, dict):
        return max([len(value), *map(largest, value.values())])
    return max(map(largest, value), default=0) if isinstance(value, list) else 0


def drawn(draw: random.Random, depth: int) -> Any:
    kind = draw.random() if depth < 5 else 1.0
    if kind < 0.4:
        names = [str(number) + draw.choice(ENDS) for number in range(draw.randint(0, 5))]
        return {name: drawn(draw, depth + 1) for name in names}
    if kind < 0.6:
        return [drawn(draw, depth + 1) for _ in range(draw.randint(0, 4))]
    return draw.choice([1, None, ":", '{"a":1}', "\\", '"', '":', "{", "ä"])


def test_names_are_those_that_a_parser_finds() -> None:
    draw = random.Random(0)

    for _ in range(2000):
        document = drawn(draw, 0)
        text = json.dumps(document, indent=draw.choice([None, 1]), ensure_ascii=draw.random() < 0.5)
        assert most_names(text.encode()) == largest(document), text


@pytest.mark.parametrize("text", ["}}}", "{{{", '"', '"::::', "::::{", '{"a"'])
def test_what_is_no_json_has_some_number_of_names(text: str) -> None:
    assert most_names(text.encode()) >= 0


@pytest.mark.parametrize("value", ["0", "{}"])
def test_object_of_very_many_names_is_refused_unread(value: str) -> None:
    names = ",".join(f'"{number}":{value}' for number in range(240_000))

    with pytest.raises(RequestError, match=r"^body: has an object of 240000 fields, at most 10000 are read; leave out"):
        check_values(f'{{"user": {{"a": {{{names}}}}}}}'.encode(), MAX_VALUES)


def test_ten_thousand_candidates_of_49_columns_are_read() -> None:
    row = "{" + ",".join(f'"column{number}":"a:b"' for number in range(49)) + "}"

    check_values(f'{{"candidates": [{",".join([row] * 10_000)}]}}'.encode(), MAX_VALUES)


def test_largest_requests_are_refused_one_by_one(bundle: ModelBundle) -> None:
    ranker = Ranker(bundle)
    model = ServedModel.read(describe(ranker).model_dump())

    found = [read(ranker, sent, times=1) for sent in all_costly(ValidRequests.of(model, num_candidates=2, seed=0))]

    assert [one.name for one in found if one.is_right] == []
    fields = {one.name: one.answer.partition(":")[0] for one in found}
    assert {name: fields[name] for name in ("JSON: many names", "KServe: many columns", "gRPC: empty fields")} == {
        "JSON: many names": "body",
        "KServe: many columns": "body",
        "gRPC: empty fields": "body",
    }
    assert fields["JSON: one long text"] == "user.user_id"
    assert fields["gRPC: texts in contents"] == "candidates"
