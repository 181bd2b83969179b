"""Which values of a column count as 1, as a config writes them and an encoder keeps them."""

from typing import Any

import pytest

from recmoe.features.labels import LabelColumn, Positive


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
