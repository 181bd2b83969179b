"""Ranking requests for a load: out of a log, or made up from what the server says of its model."""

import random
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from recmoe.client import ServedModel
from recmoe.data.parquet import ParquetStream
from recmoe.errors import DataError
from recmoe.onboarding.sampled_rows import sample_rows

_LIST = re.compile(r"(?:large_|fixed_size_)?list<[^:]*: (?P<value>.*?)(?: not null)?>")
_DICTIONARY = re.compile(r"dictionary<values=(?P<value>[^,]*),")
_LIST_LENGTH = 10

Document = dict[str, Any]


def made_requests(
    model: ServedModel, *, num_requests: int, num_candidates: int, num_ids: int, seed: int
) -> list[Document]:
    """Requests with every column that the model knows; the values are drawn, not from any log.

    Args:
        num_ids: whole numbers are drawn from 0 up to this.
    """
    draw = random.Random(seed)

    def row(side: str) -> Document:
        return {name: _made(kind, draw, num_ids) for name, kind in model.columns.get(side, {}).items()}

    return [
        {"user": row("user"), "context": row("context"), "candidates": [row("item") for _ in range(num_candidates)]}
        for _ in range(num_requests)
    ]


def requests_of_log(
    model: ServedModel, patterns: Sequence[str], *, num_requests: int, num_candidates: int, seed: int
) -> list[Document]:
    """Requests whose user and context are those of one row, and whose candidates are the items of others.

    Items come as often as they are in the log. Columns that the log lacks are left out.

    Raises:
        DataError: there are no such files, or no column in them is one of the model.
    """
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        stream = ParquetStream(patterns, seed=seed, shuffle_rows=None, cache_dir=Path(folder))
        known = {
            side: [name for name in columns if name in stream.arrow_schema.names]
            for side, columns in model.columns.items()
        }
        wanted = list(dict.fromkeys(name for names in known.values() for name in names))
        if not known.get("item") or not wanted:
            asked = ", ".join(model.columns.get("item", {}))
            raise DataError(
                f"{', '.join(patterns)}: no column is one of the model's item columns, which are {asked}; "
                "give the log that the model was trained on, or one like it"
            )
        rows, _ = sample_rows(stream, wanted)
    types = {name: kind for columns in model.columns.values() for name, kind in columns.items()}
    values = {name: _values(rows[name], types[name]) for name in wanted}

    def row(side: str, place: int) -> Document:
        return {name: value for name in known.get(side, []) if (value := values[name][place]) is not None}

    requests = []
    for _ in range(num_requests):
        place = draw.randrange(rows.num_rows)
        places = draw.choices(range(rows.num_rows), k=num_candidates)
        candidates = [row("item", one) for one in places]
        requests.append({"user": row("user", place), "context": row("context", place), "candidates": candidates})
    return requests


def _values(column: pa.ChunkedArray, kind: str) -> list[Any]:
    """A column as JSON values of the type that the model reads; None where there is nothing."""
    is_text = kind in ("string", "large_string") or kind.startswith("dictionary<values=string")
    values = column.to_pylist()
    if is_text and not pa.types.is_string(column.type) and not pa.types.is_temporal(column.type):
        return [None if value is None else str(value) for value in values]
    # NaN is nothing.
    return [value if value == value else None for value in values]


def _made(kind: str, draw: random.Random, num_ids: int) -> Any:
    """A value of an Arrow type, as the API names it."""
    if (listed := _LIST.match(kind)) is not None:
        return [_made(listed["value"], draw, num_ids) for _ in range(_LIST_LENGTH)]
    if (coded := _DICTIONARY.match(kind)) is not None:
        return _made(coded["value"], draw, num_ids)
    if kind == "bool":
        return draw.random() < 0.5
    if kind.startswith(("int", "uint")):
        return draw.randrange(min(num_ids, 100) if kind in ("int8", "uint8") else num_ids)
    if kind in ("float", "double", "halffloat"):
        return round(draw.lognormvariate(0, 1), 4)
    if kind.startswith("decimal"):
        return str(draw.randrange(10))
    if kind.startswith("date"):
        return f"2026-01-{draw.randrange(1, 29):02d}"
    if kind.startswith("time") and not kind.startswith("timestamp"):
        return f"{draw.randrange(24):02d}:00:00"
    if kind.startswith("timestamp"):
        return f"2026-01-{draw.randrange(1, 29):02d}T10:00:00" + ("Z" if "tz=" in kind else "")
    return None if kind == "null" else f"made{draw.randrange(num_ids)}"
