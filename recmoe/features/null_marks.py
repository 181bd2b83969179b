"""Marks for null in text: what logs write where there is nothing."""

import pyarrow as pa
import pyarrow.compute as pc

TEXT_NULLS = ("", "NULL", "null", "\\N", "NaN", "nan", "<NA>", "#N/A", "N/A", "n/a")
"""Unquoted cells of CSV that are null in every column."""
OTHER_NULLS = (*TEXT_NULLS, "NA", "na", "None", "none", "-", "?")
"""Cells that are null where all others are numbers, times or booleans: in a column of text they may be meant."""


def holds_marks_only(text: pa.ChunkedArray) -> bool:
    """Whether a column of text holds nothing but nulls and marks for it, as one of numbers may; no rows say nothing."""
    marks = pa.array(OTHER_NULLS)
    values = (chunk.drop_null().cast(pa.string()) for chunk in text.chunks)
    return len(text) > 0 and all(pc.all(pc.is_in(value, value_set=marks), min_count=0).as_py() for value in values)
