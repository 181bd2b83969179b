"""Tests of ColumnKind: the type of a CSV column from all of its cells."""

import datetime
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from recmoe.data.csv_types import ColumnKind, NumberStyle, typed
from recmoe.features.null_marks import OTHER_NULLS


def _typed(*blocks: Sequence[str | None], style: NumberStyle | None = None) -> tuple[pa.DataType, list[Any]]:
    kind = ColumnKind(style or NumberStyle(), OTHER_NULLS)
    cells = [pa.array(block, pa.string()) for block in blocks]
    for block in cells:
        kind.learn(block)
    return kind.type, [value for block in cells for value in kind.read(block).to_pylist()]


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["7", " 8", None, "-9"], pa.int64(), [7, 8, None, -9]),
        (["9223372036854775807"], pa.int64(), [2**63 - 1]),
        (["7", "0.5", "1e3", "-.5"], pa.float64(), [7.0, 0.5, 1000.0, -0.5]),
        (["true", "False"], pa.bool_(), [True, False]),
        (["2026-01-31"], pa.date32(), [datetime.date(2026, 1, 31)]),
        (["2026-01-31", "2026-01-31 10:00:00"], pa.timestamp("s"), None),
        (["2026-01-31 10:00:00.5"], pa.timestamp("ns"), None),
        (["2026-01-31T10:00:00Z", "2026-01-31T10:00:00+02:00"], pa.timestamp("ns", "UTC"), None),
        ([None, None], pa.null(), [None, None]),
        ([], pa.null(), []),
        (["x", "7"], pa.string(), ["x", "7"]),
    ],
)
def test_type_is_the_first_that_all_cells_fit(
    cells: list[str | None], kind: pa.DataType, values: list[Any] | None
) -> None:
    found = _typed(cells)

    assert found[0] == kind
    assert values is None or found[1] == values


@pytest.mark.parametrize(
    "cells",
    [
        ["0000000005"],
        ["007", "7"],
        ["0.5", "007"],
        ["12345678901234567890", "12345678901234567891"],
        ["9007199254740993", "0.5"],
        ["+41791234567"],
        ["0x1F"],
    ],
    ids=str,
)
def test_ids_that_a_number_would_change_stay_text(cells: list[str]) -> None:
    assert _typed(cells) == (pa.string(), cells)
    assert _typed(["1"], cells) == (pa.string(), ["1", *cells])


def test_type_widens_over_the_blocks() -> None:
    assert _typed([None], ["1"], ["0.5"]) == (pa.float64(), [None, 1.0, 0.5])
    assert _typed(["9007199254740993"], ["0.5"]) == (pa.string(), ["9007199254740993", "0.5"])
    assert _typed(["2026-01-31"], ["7"]) == (pa.string(), ["2026-01-31", "7"])


def test_mark_for_null_is_null_among_numbers_and_a_value_among_texts() -> None:
    assert _typed(["1", "NA", "?"]) == (pa.int64(), [1, None, None])
    assert _typed(["CH", "NA"]) == (pa.string(), ["CH", "NA"])
    assert _typed(["NA"], ["1"]) == (pa.int64(), [None, 1])
    assert _typed(["NA"]) == (pa.string(), ["NA"])


@pytest.mark.parametrize(
    ("style", "cells", "kind", "values"),
    [
        (NumberStyle(".", ","), ["1,234.50", "12", "1,234,567"], pa.float64(), [1234.5, 12.0, 1234567.0]),
        (NumberStyle(".", ","), ["1,234", "12"], pa.int64(), [1234, 12]),
        (NumberStyle(".", ","), ["1,23", "12"], pa.string(), ["1,23", "12"]),
        (NumberStyle(",", "."), ["1.234,5", "-3", "2,5e3"], pa.float64(), [1234.5, -3.0, 2500.0]),
        (NumberStyle(",", None), ["1,5", "2"], pa.float64(), [1.5, 2.0]),
        (NumberStyle(",", None), ["1.5", "2"], pa.string(), ["1.5", "2"]),
        (NumberStyle(".", "'"), ["1'234.5", "NA"], pa.float64(), [1234.5, None]),
        (NumberStyle(",", None), ["007", "7"], pa.string(), ["007", "7"]),
    ],
)
def test_numbers_are_read_in_their_style(
    style: NumberStyle, cells: list[str], kind: pa.DataType, values: list[Any]
) -> None:
    assert _typed(cells, style=style) == (kind, values)


@pytest.mark.parametrize("style", [NumberStyle(), NumberStyle(",", "."), NumberStyle(",", None), NumberStyle(".", "'")])
def test_infinite_number_is_a_number_in_every_style(style: NumberStyle) -> None:
    fraction = f"1{style.decimal}5"

    kind, values = _typed([fraction, "inf", "-inf", "+Infinity", "2"], style=style)

    assert kind == pa.float64()
    assert values == [1.5, math.inf, -math.inf, math.inf, 2.0]
    assert _typed([fraction, "infant"], style=style)[0] == pa.string()


def test_column_that_must_be_text_is_text() -> None:
    kind = ColumnKind(NumberStyle(), OTHER_NULLS, is_text=True)

    kind.learn(pa.array(["7", "NA"]))

    assert kind.type == pa.string()
    assert not kind.is_vague
    assert kind.read(pa.array(["7", "NA"])).to_pylist() == ["7", "NA"]


def test_some_texts_have_a_type_like_a_column() -> None:
    assert typed(["1", None, "2"]).equals(pa.array([1, None, 2]))
    assert typed(["NA", "01"]).equals(pa.array(["NA", "01"]))
