"""How well hidden ids are guessed: the numbers by hand, and in parts."""

from math import isnan, log

import pytest

from recmoe.evaluation.hidden_ids import HiddenIds, score

SOME = HiddenIds(hidden_C=(3, 1, 0), shown_C=(5, 0, 2), loss_sum=2.0, num_right=3)
NONE = HiddenIds(hidden_C=(0, 0, 0), shown_C=(5, 0, 2), loss_sum=0.0, num_right=0)


def test_frequencies_are_those_of_the_ids_that_are_shown_with_one_more_of_each() -> None:
    expected = (3 * log(10 / 6) + 1 * log(10 / 1)) / 4

    assert SOME.frequency_loss == pytest.approx(expected)
    assert SOME.saved == pytest.approx(1 - 0.5 / expected)
    assert SOME.to_json() == {
        "classes": 3,
        "hidden": 4,
        "loss": 0.5,
        "frequency_loss": SOME.frequency_loss,
        "saved": SOME.saved,
        "right": 0.75,
    }


def test_merged_parts_are_the_whole() -> None:
    other = HiddenIds(hidden_C=(0, 2, 2), shown_C=(1, 1, 1), loss_sum=5.0, num_right=1)

    merged = SOME.merge(other)

    assert merged == HiddenIds(hidden_C=(3, 3, 2), shown_C=(6, 1, 3), loss_sum=7.0, num_right=4)


def test_without_hidden_ids_there_are_no_numbers() -> None:
    assert NONE.to_json() == {
        "classes": 3,
        "hidden": 0,
        "loss": None,
        "frequency_loss": None,
        "saved": None,
        "right": None,
    }
    assert isnan(score({"a": NONE}))
    assert score({"a": NONE, "b": SOME}) == SOME.saved
