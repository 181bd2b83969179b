"""Warnings of ``recmoe rank``, as the terminal shows them."""

import pytest

from recmoe.cli.serving import _told
from recmoe.ranking.request import FeatureWarning
from recmoe.ranking.score import did_you_mean

PRICE = "Preis\n(EUR)"


@pytest.mark.parametrize(
    ("warning", "line"),
    [
        (FeatureWarning(feature="age", code="missing", count=2), "age: 2 missing"),
        (
            FeatureWarning(feature="Preis_EUR", column=PRICE, code="missing", count=2),
            r"Preis_EUR (field 'Preis\n(EUR)'): 2 missing",
        ),
        (
            FeatureWarning(
                feature="Preis\n(EU)", code="unknown_field", count=1, hint=did_you_mean("Preis\n(EU)", [PRICE])
            ),
            r"'Preis\n(EU)': the model does not know this field, it is ignored; did you mean 'Preis\n(EUR)'?",
        ),
    ],
)
def test_warning_is_one_line_that_names_the_field(warning: FeatureWarning, line: str) -> None:
    assert _told(warning) == line
