"""Tests of parquet_of_json."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.data import json_cache
from recmoe.data.json_cache import parquet_of_json
from recmoe.errors import DataError


def _read(tmp_path: Path, data: str | bytes) -> pa.Table:
    path = tmp_path / "log.jsonl"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return pq.read_table(parquet_of_json(path, cache_dir=tmp_path / "cache"))


def test_lines_are_rows_and_missing_fields_null(tmp_path: Path) -> None:
    rows = [{"id": 2**60 + 1, "tags": ["a"], "at": "2026-01-31T10:00:00Z"}, {"id": 7, "price": 2.5, "no": None}]

    table = _read(tmp_path, "\n\n".join(map(json.dumps, rows)))

    assert table.to_pylist() == [
        {"id": 2**60 + 1, "tags": ["a"], "at": "2026-01-31T10:00:00Z", "price": None, "no": None},
        {"id": 7, "tags": None, "at": None, "price": 2.5, "no": None},
    ]


def test_types_are_those_of_all_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_cache, "BLOCK_BYTES", 64)
    lines = ['{"a": null, "t": "2026-01-31", "l": []}'] * 5 + ['{"a": 1, "t": "x", "l": [1]}', '{"a": 0.5, "b": 1}']

    table = _read(tmp_path, gzip.compress("\n".join(lines).encode() + b"\n"))

    assert table.schema == pa.schema({"a": pa.float64(), "t": pa.string(), "l": pa.list_(pa.int64()), "b": pa.int64()})
    assert table["a"].to_pylist() == [None] * 5 + [1.0, 0.5]
    assert table["t"].to_pylist() == ["2026-01-31"] * 5 + ["x", None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"log\.jsonl: holds no JSON object; one is expected in every line"),
        ("{}\nnothing\n", r"log\.jsonl: not readable as JSON lines, in the lines from 1 on: .*Invalid value"),
        ('{"a": 1}\n{"a": "x"}\n', r"log\.jsonl: not readable as JSON lines, .*/a.* changed from number to string"),
        (
            '{"a": 12345678901234567890}\n',
            r"log\.jsonl, lines from 1 on, field 'a': integers beyond 2\^53 beside fractions, or beyond int64",
        ),
        (b"\x1f\x8b broken", r"log\.jsonl: cannot be read \(.*\); write the file anew"),
    ],
)
def test_wrong_lines_are_an_error_that_names_the_file(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _read(tmp_path, text)


def test_lines_of_two_blocks_that_disagree_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_cache, "BLOCK_BYTES", 16)

    with pytest.raises(DataError, match=r"log\.jsonl: lines disagree: .*a.*; write one type of value in each field"):
        _read(tmp_path, '{"a": 1, "b": 2}\n{"a": "x", "b": 1}\n')
