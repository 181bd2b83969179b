"""Tests of parquet_of_csv."""

import gzip
import multiprocessing
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.data import csv_cache
from recmoe.data.csv_cache import num_skipped_rows, parquet_of_csv
from recmoe.errors import DataError


def _csv(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "log.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_types_are_inferred_and_unquoted_empty_cells_are_null(tmp_path: Path) -> None:
    path = _csv(tmp_path, 'id,price,city,day,note\n1,2.5,Rome,2024-01-02,""\n,,,,\n3,NaN,"a, ""b""\nc",2024-01-03,x\n')

    table = pq.read_table(parquet_of_csv(path, cache_dir=tmp_path / "cache", on_error="fail"))

    assert table.schema.types == [pa.int64(), pa.float64(), pa.string(), pa.date32(), pa.string()]
    assert table["id"].to_pylist() == [1, None, 3]
    assert table["price"].to_pylist() == [2.5, None, None]
    assert table["city"].to_pylist() == ["Rome", None, 'a, "b"\nc']
    assert table["note"].to_pylist() == ["", None, "x"]


def test_compressed_file_gives_the_same_rows(tmp_path: Path) -> None:
    plain = _csv(tmp_path, "a,b\n1,x\n2,y\n")
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))

    tables = [pq.read_table(parquet_of_csv(path, cache_dir=tmp_path, on_error="fail")) for path in (plain, packed)]

    assert tables[0].equals(tables[1])


def test_file_is_converted_once_until_it_changes(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a\n1\n")
    first = parquet_of_csv(path, cache_dir=tmp_path / "cache", on_error="fail")
    made = first.stat().st_mtime_ns

    again = parquet_of_csv(path, cache_dir=tmp_path / "cache", on_error="fail")
    os.utime(path, ns=(0, 0))
    changed = parquet_of_csv(path, cache_dir=tmp_path / "cache", on_error="fail")

    assert again == first
    assert again.stat().st_mtime_ns == made
    assert changed != first


def test_damaged_copy_is_made_anew(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a\n1\n")
    copy = parquet_of_csv(path, cache_dir=tmp_path, on_error="fail")
    copy.write_bytes(copy.read_bytes()[:-5])

    table = pq.read_table(parquet_of_csv(path, cache_dir=tmp_path, on_error="fail"))

    assert table["a"].to_pylist() == [1]


def test_nothing_is_left_behind_when_a_conversion_fails(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a,b\n1,2\n3\n")

    with pytest.raises(DataError):
        parquet_of_csv(path, cache_dir=tmp_path / "cache", on_error="fail")

    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"log\.csv: not a readable CSV file: Empty CSV file; mend the file, or set data\.on_error to skip"),
        ("a,b\n1,2\n3\n", r"log\.csv: not a readable CSV file: .*Row #3: Expected 2 columns, got 1: 3"),
        (b"a,b\n1,\xff\xfe\n", r"log\.csv, column 'b': the text is not UTF-8; save the file in UTF-8"),
    ],
)
def test_unreadable_file_is_an_error_that_names_it(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = _csv(tmp_path, text)

    with pytest.raises(DataError, match=message):
        parquet_of_csv(path, cache_dir=tmp_path / "cache", on_error="fail")


def test_cut_compressed_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(os.urandom(1000).hex().encode())[:-100])

    with pytest.raises(DataError, match=r"log\.csv\.gz: not a readable CSV file: Truncated compressed stream"):
        parquet_of_csv(path, cache_dir=tmp_path / "cache", on_error="fail")


def test_cell_of_another_type_in_a_later_block_names_file_row_and_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_cache, "BLOCK_BYTES", 4096)
    path = _csv(tmp_path, "a,b\n" + "1,2\n" * 2000 + "1,abc\n")

    with pytest.raises(DataError, match=r"log\.csv, row 2002 .*, column 'b': .*int64.*'abc'; types are taken from"):
        parquet_of_csv(path, cache_dir=tmp_path / "cache", on_error="fail")


def test_rows_with_a_wrong_number_of_cells_are_skipped_and_counted(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a,b\n1,2\n3\n4,5,6\n7,8\n")

    copy = parquet_of_csv(path, cache_dir=tmp_path / "cache", on_error="skip")

    assert pq.read_table(copy)["a"].to_pylist() == [1, 7]
    assert num_skipped_rows(pq.read_metadata(copy)) == 2


def test_cache_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a\n1\n")

    with pytest.raises(DataError, match=r"cannot write the Parquet copy of .*log\.csv .*; set data\.cache_dir"):
        parquet_of_csv(path, cache_dir=path / "cache", on_error="fail")


@pytest.mark.slow
def test_two_processes_convert_the_same_file_at_once(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a,b\n" + "1,2\n" * 200_000)
    context = multiprocessing.get_context("spawn")

    with context.Pool(2) as pool:
        jobs = [
            pool.apply_async(parquet_of_csv, (path,), {"cache_dir": tmp_path / "cache", "on_error": "fail"})
            for _ in range(4)
        ]
        copies = [job.get(timeout=120) for job in jobs]

    assert len(set(copies)) == 1
    assert list((tmp_path / "cache").iterdir()) == [copies[0]]
    assert pq.read_metadata(copies[0]).num_rows == 200_000
