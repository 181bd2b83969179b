"""settle(), separator_of(): what a CSV file shows of how it is written, or one line that says what to set."""

import csv
import functools
import io
import itertools
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from recmoe.data.csv_config import CsvConfig
from recmoe.data.csv_source import CsvSource, open_csv_source
from recmoe.data.csv_types import NOT_FINITE
from recmoe.errors import DataError
from recmoe.features.null_marks import OTHER_NULLS

logger = logging.getLogger(__name__)

SEPARATORS = ("\t", "\x01", ";", ",", "|")
"""Those that are recognised; of equally good ones the first, for text holds commas more often than tabs."""
SAMPLE_ROWS = 2000

_NUMBER = r"[+-]?[0-9]+([.,'][0-9]+)*([eE][+-]?[0-9]+)?"
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}([ T].*)?"
_PLAIN = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
_COMMA_THOUSANDS = r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?"
_QUOTE_THOUSANDS = r"[+-]?[0-9]{1,3}('[0-9]{3})+(\.[0-9]+)?"
_COMMA_DECIMAL = r"[+-]?([0-9]+|[0-9]{1,3}(\.[0-9]{3})+)(,[0-9]+)?([eE][+-]?[0-9]+)?"
_EITHER = r"[+-]?[0-9]{1,3},[0-9]{3}"
"""1,234: 1234 or 1.234."""


def settle(path: Path, config: CsvConfig) -> CsvConfig:
    """The config with what must be the same in all files, as one of them shows it: the header and the numbers.

    Raises:
        DataError: the file cannot be read, its first line holds no names, or its numbers are written in two ways.
    """
    source = open_csv_source(path, config.encoding)
    separator = separator_of(source, config)
    rows = list(_rows(source, separator))
    if not rows:
        return config
    has_header = config.header
    if has_header is None:
        has_header = not config.columns
        if has_header and (shown := _data_in_header(rows)):
            raise DataError(
                f"{path}: the first line looks like data, not like names of columns ({shown}); name the columns in "
                "data.csv.columns, or set data.csv.header to true"
            )
    style = _number_style(path, rows[1:] if has_header else rows, separator, config)
    return config.model_copy(update={"header": has_header, **style})


def separator_of(source: CsvSource, config: CsvConfig) -> str:
    """The separator: the one by which the first line and most others have equally many cells, and more than one.

    Raises:
        DataError: there is none, and the first line does not look like a single cell.
    """
    if config.separator is not None:
        return config.separator
    best, best_share = None, 0.5
    for separator in SEPARATORS:
        widths = [len(row) for row in _rows(source, separator)]
        if widths and widths[0] > 1:
            share = widths.count(widths[0]) / len(widths)
            if share > best_share:
                best, best_share = separator, share
    if best is not None:
        return best
    first = next(_rows(source, ","), [""])
    if len(first) == 1 and re.search(r"[^\w.\- ]", first[0].strip()) and "\n" not in first[0]:
        raise DataError(
            f"{source.path}: cannot tell what separates the cells of the first line, {first[0][:80]!r}; "
            "name it in data.csv.separator"
        )
    return ","


def _rows(source: CsvSource, separator: str) -> Iterator[list[str]]:
    """Rows of the sample; one that is cut is left out."""
    reader = csv.reader(io.StringIO(source.sample, newline=""), delimiter=separator)
    try:
        rows = [row for row in itertools.islice(reader, SAMPLE_ROWS) if row]
    except csv.Error:
        # A cell beyond the csv module's limit: the first line is what counts.
        rows = [next(csv.reader(io.StringIO(source.sample, newline=""), delimiter=separator))]
    if not source.is_whole and len(rows) < SAMPLE_ROWS:
        rows = rows[:-1] or rows
    return iter(rows)


def _data_in_header(rows: Sequence[list[str]]) -> str:
    """Cells of the first row that are no names; empty where there are none."""
    first, others = rows[0], rows[1:]
    if first == [str(place) for place in range(len(first))]:
        return ""  # The names that pandas gives.
    shown = [cell for cell in first if re.fullmatch(f"{_NUMBER}|{_DATE}", cell.strip())]
    if not shown and first not in others:
        shown = [
            cell
            for place, cell in enumerate(first)
            if cell and any(place < len(row) and row[place] == cell for row in others)
        ]
    return ", ".join(map(repr, shown[:3]))


def _number_style(path: Path, rows: Sequence[list[str]], separator: str, config: CsvConfig) -> dict[str, str | None]:
    """Decimal and thousands marks: those of the config, else those of columns that leave no doubt."""
    if config.decimal is not None:
        return {"decimal": config.decimal, "thousands": config.thousands}
    if config.thousands is not None:
        return {"decimal": "," if config.thousands == "." else ".", "thousands": config.thousands}
    nulls = {*OTHER_NULLS, *(config.null_values or ())}
    says_nothing = re.compile(f"[+-]?{NOT_FINITE}").fullmatch
    styles: dict[tuple[str, str | None], str] = {}
    doubtful: list[str] = []
    for column in itertools.zip_longest(*rows, fillvalue=""):
        cells = [cell.strip() for cell in column if cell.strip() not in nulls and not says_nothing(cell.strip())]
        if not any("," in cell or "'" in cell for cell in cells):
            continue
        if _all(cells, f"{_PLAIN}|{_COMMA_THOUSANDS}") and any("." in cell and "," in cell for cell in cells):
            styles[".", ","] = next(cell for cell in cells if "." in cell and "," in cell)
        elif _all(cells, f"{_PLAIN}|{_QUOTE_THOUSANDS}"):
            styles[".", "'"] = next(cell for cell in cells if "'" in cell)
        elif _all(cells, f"[+-]?[0-9]+|{_EITHER}") or (separator == "," and _all(cells, _COMMA_DECIMAL)):
            # Where the comma does not separate cells, it may separate the ids of a list.
            doubtful.append(next(cell for cell in cells if "," in cell))
        elif _all(cells, _COMMA_DECIMAL):
            thousands = "." if any("." in cell for cell in cells) else None
            styles[",", thousands] = next(cell for cell in cells if "," in cell)
    if styles.keys() == {(",", None), (",", ".")}:
        del styles[",", None]
    if len(styles) > 1:
        shown = " and ".join(map(repr, styles.values()))
        raise DataError(
            f"{path}: numbers are written in two ways, {shown}; set data.csv.decimal and data.csv.thousands"
        )
    if doubtful and not any("," in style for style in styles):
        _tell_doubt(path, doubtful[0])
    decimal, mark = next(iter(styles), (".", None))
    return {"decimal": decimal, "thousands": mark}


@functools.cache
def _tell_doubt(path: Path, cell: str) -> None:
    """Once, although a run opens its files several times."""
    logger.warning(
        "%s: %r may be a thousand, a fraction or a list, and stays text; if it is a number, set data.csv.decimal "
        "and data.csv.thousands",
        path,
        cell,
    )


def _all(cells: Sequence[str], pattern: str) -> bool:
    compiled = re.compile(pattern)
    return all(compiled.fullmatch(cell) for cell in cells)
