"""What commands print: JSON for programs, aligned columns for people."""

import json
import math
from collections.abc import Sequence
from typing import Any


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2, default=str))


def print_columns(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Rows under headers; numbers stand right, text left, and a dash where there is no number.

    Example::

        split  rows  click
        train  8000  0.031
    """
    texts = [[_text(value) for value in row] for row in rows]
    widths = [max(len(line[column]) for line in [headers, *texts]) for column in range(len(headers))]
    is_number = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(headers))]
    for line in [list(headers), *texts]:
        cells = zip(line, widths, is_number, strict=True)
        print("  ".join(text.rjust(width) if right else text.ljust(width) for text, width, right in cells).rstrip())


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if math.isnan(value):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"
