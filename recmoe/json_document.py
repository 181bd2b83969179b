"""JSON documents that may come from anybody: read_object() and checked() say in one line what is wrong with them."""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

T = TypeVar("T")


def read_object(content: bytes | str) -> dict[str, Any]:
    """The object that a JSON document holds.

    Raises:
        ValueError: it is no JSON, no object, or its brackets are more than 200 deep.
    """
    document = from_json(content)
    if not isinstance(document, dict):
        raise ValueError(f"expected a JSON object, found {_kind(document)}")
    return document


def checked(kind: TypeAdapter[T], values: Any) -> T:
    """Values of a document as the type that they must be.

    Raises:
        ValueError: one of them is of another type; the first is named by its key path.
    """
    try:
        return kind.validate_python(values)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from error


def first_problem(error: ValidationError) -> str:
    """The first thing that does not fit, with its key path, and how many others there are."""
    first, *others = error.errors(include_url=False, include_context=False, include_input=False)
    place = ".".join(map(str, first["loc"]))
    more = f" (and {len(others)} more)" if others else ""
    return f"{place}: {first['msg']}{more}" if place else f"{first['msg']}{more}"


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")
