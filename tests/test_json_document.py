"""Documents of anybody are objects of the right types, or a line says what they are."""

import pytest
from pydantic import TypeAdapter

from recmoe.json_document import checked, read_object


def test_object_is_read_from_bytes_and_text() -> None:
    assert read_object(b'{"a": [1, 0.1, null]}') == {"a": [1, 0.1, None]}
    assert read_object('{"a": Infinity}') == {"a": float("inf")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "expected a JSON object, found a list"),
        ('"a"', "expected a JSON object, found a string"),
        ("1.5", "expected a JSON object, found a number"),
        ("true", "expected a JSON object, found true or false"),
        ("null", "expected a JSON object, found null"),
        ("{", "EOF while parsing"),
        ("[" * 1_000_000, "recursion limit exceeded"),
        ('{"a":' * 1_000_000, "recursion limit exceeded"),
    ],
)
def test_anything_else_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_object(text)


def test_value_of_another_type_is_named_in_one_line() -> None:
    kind = TypeAdapter(dict[str, list[str]])

    assert checked(kind, {"a": ["b"]}) == {"a": ["b"]}
    with pytest.raises(ValueError, match=r"^a\.1: Input should be a valid string \(and 1 more\)$"):
        checked(kind, {"a": ["b", 1], "c": 2})
    with pytest.raises(ValueError, match=r"^Input should be a valid dictionary$"):
        checked(kind, [])
