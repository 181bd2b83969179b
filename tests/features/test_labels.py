"""Which values of a column count as 1, as a config writes them and an encoder keeps them."""

from typing import Any

import pytest

from recmoe.features.labels import LabelColumn, Levels, Positive


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Y", "outcome is Y"),
        (2, "outcome is 2"),
        (["cart", "buy"], "outcome is cart or buy"),
        ({"at_least": 4}, "outcome >= 4"),
        ({"above": 0.5}, "outcome > 0.5"),
    ],
)
def test_label_is_kept_and_named_by_its_values(written: Any, name: str) -> None:
    label = LabelColumn("outcome", is_binary=True, positive=Positive.model_validate(written))

    assert label.name == name
    assert LabelColumn.from_json(label.to_json()) == label


def test_plain_label_is_kept_as_earlier_versions_did() -> None:
    label = LabelColumn("sale", is_binary=True, implies="click")

    assert label.to_json() == {"column": "sale", "is_binary": True, "implies": "click"}
    assert LabelColumn.from_json(label.to_json()) == label


@pytest.mark.parametrize(
    ("written", "path", "message"),
    [
        ([], "", "give the values that count as 1, at_least or above, and only one of them"),
        ({"at_least": 4, "above": 3}, "", "only one of them"),
        ({"above": float("inf")}, "above", "a threshold must be a finite number, got inf"),
    ],
)
def test_positive_that_says_nothing_or_too_much_is_named(written: Any, path: str, message: str) -> None:
    problems = list(Positive.model_validate(written).problems())

    assert any(found == path and message in text for found, text in problems), problems


@pytest.mark.parametrize(
    ("written", "name", "numbers"),
    [
        ([1, 2, 3.5], "rating of 1, 2, 3.5", (1, 2, 3.5)),
        ({"low": 0, "high": 1}, "rating of low: 0, high: 1", (0, 1)),
        ({"1": 10, 2: 20.5}, "rating of 1: 10, 2: 20.5", (10, 20.5)),
    ],
)
def test_label_is_kept_and_named_by_its_levels(written: Any, name: str, numbers: tuple[float, ...]) -> None:
    levels = Levels.model_validate(written)
    label = LabelColumn("rating", is_binary=False, levels=levels)

    assert label.name == name
    assert levels.numbers == numbers
    assert LabelColumn.from_json(label.to_json()) == label
    assert Levels.model_validate_json(levels.model_dump_json()) == levels


def test_amount_is_kept() -> None:
    label = LabelColumn("spent", is_binary=False, is_amount=True)

    assert label.to_json() == {"column": "spent", "is_binary": False, "implies": None, "is_amount": True}
    assert LabelColumn.from_json(label.to_json()) == label


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ([3], "give two levels or more, got 1"),
        ([1, float("inf")], "a level must stand for a finite number, got inf"),
        ({"view": 0, "back": 0, "buy": 2}, "two levels stand for 0; give them different numbers, or make them one"),
    ],
)
def test_levels_that_cannot_be_told_apart_are_named(written: Any, message: str) -> None:
    assert [("", message)] == list(Levels.model_validate(written).problems())
