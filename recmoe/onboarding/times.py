"""times: which columns of a log are times, and times as numbers that grow."""

# N rows

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recmoe.errors import DataError
from recmoe.onboarding import column_names as names
from recmoe.onboarding.profile import ColumnProfile, LogProfile
from recmoe.onboarding.values import is_number, is_text, is_time, numbers

# Seconds from 1990 to 2100, in the units in which clocks count.
CLOCK_UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
CLOCK_RANGE_S = (631_152_000, 4_102_444_800)
# Dates written as one number, such as 20220410 and 2022041014, by their digits.
DATE_DIGITS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


def is_clock(log: LogProfile, column: ColumnProfile) -> bool:
    """Whether a column holds times: by its type, or by a name that says so and values that can be times."""
    if is_time(column.type):
        return True
    if not names.words(column.name) & names.TIME_WORDS:
        return False
    return clock_unit(column) is not None or _is_date_number(log, column) or _is_time_text(log, column)


def clock_unit(column: ColumnProfile) -> str | None:
    """The unit of a number that counts from 1970; None where it is no clock."""
    if not is_number(column.type) or column.low is None or column.high is None or column.is_binary:
        return None
    for unit, factor in CLOCK_UNITS.items():
        if CLOCK_RANGE_S[0] * factor <= column.low and column.high <= CLOCK_RANGE_S[1] * factor:
            return unit
    return None


def _is_date_number(log: LogProfile, column: ColumnProfile) -> bool:
    """Whether all numbers of the sample are dates such as 20220410, or 22041014 with the hour."""
    if not is_number(column.type) or column.low is None or column.high is None or column.low < 0:
        return False
    num_digits = len(f"{column.high:.0f}")
    if num_digits not in DATE_DIGITS or len(f"{column.low:.0f}") != num_digits:
        return False
    x_N = numbers(log.sample[column.name])
    texts = [f"{value:.0f}" for value in np.unique(x_N[np.isfinite(x_N)]).tolist()]
    formats = [DATE_DIGITS[num_digits]] + (["%y%m%d%H"] if num_digits == 8 else [])
    return any(_are_dates(texts, format_) for format_ in formats)


def _are_dates(texts: list[str], format_: str) -> bool:
    parsed = pc.strptime(pa.array(texts, pa.string()), format=format_, unit="s", error_is_null=True)
    years = pc.year(parsed)
    return parsed.null_count == 0 and bool(pc.all(pc.and_(pc.greater(years, 1989), pc.less(years, 2101))).as_py())


def _is_time_text(log: LogProfile, column: ColumnProfile) -> bool:
    """Whether all texts of the sample are times."""
    if not is_text(column.type):
        return False
    try:
        times_of_text(log.sample[column.name])
    except pa.ArrowInvalid:
        return False
    return True


def times_of_text(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Times written as 2025-06-01 12:30:00, all of them with a zone (Z, UTC, +02:00) or none; else pa.ArrowInvalid."""
    text = pc.replace_substring_regex(texts.cast(pa.string()), r"^\s+|\s+$", "")
    text = pc.replace_substring_regex(text, r"\s*(UTC|GMT)$", "Z")
    text = pc.replace_substring_regex(text, r"\s+([+-]\d)", r"\1")
    has_zone = pc.mean(pc.match_substring_regex(text, r":\d\d.*(Z|[+-]\d\d(:?\d\d)?)$").cast(pa.float64())).as_py()
    return text.cast(pa.timestamp("us", "UTC") if has_zone and has_zone > 0.5 else pa.timestamp("us"))


def increasing(rows: pa.Table, column: str) -> npt.NDArray[np.float64]:
    """Times as numbers that grow with them; a missing time is the earliest.

    Raises:
        DataError: a text that is no time.
    """
    values = rows[column]
    try:
        values = times_of_text(values) if is_text(values.type) else values
    except pa.ArrowInvalid as error:
        raise DataError(f"column {column} holds times as text, but not in every row: {error}") from error
    if is_time(values.type):
        values = (values.cast(pa.timestamp("us")) if pa.types.is_date(values.type) else values).cast(pa.int64())
    return np.nan_to_num(numbers(values), nan=-np.inf)
