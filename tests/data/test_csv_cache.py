"""Tests of parquet_of_csv."""

import gzip
import multiprocessing
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.data import csv_cache
from recmoe.data.csv_cache import num_skipped_rows, parquet_of_csv, vague_columns
from recmoe.data.csv_config import CsvConfig
from recmoe.errors import DataError


def _csv(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "log.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_types_are_inferred_and_unquoted_empty_cells_are_null(tmp_path: Path) -> None:
    path = _csv(tmp_path, 'id,price,city,day,note\n1,2.5,Rome,2024-01-02,""\n,,,,\n3,NaN,"a, ""b""\nc",2024-01-03,x\n')

    table = pq.read_table(parquet_of_csv(path, config=CsvConfig(), cache_dir=tmp_path / "cache", on_error="fail"))

    assert table.schema.types == [pa.int64(), pa.float64(), pa.string(), pa.date32(), pa.string()]
    assert table["id"].to_pylist() == [1, None, 3]
    assert table["price"].to_pylist() == [2.5, None, None]
    assert table["city"].to_pylist() == ["Rome", None, 'a, "b"\nc']
    assert table["note"].to_pylist() == ["", None, "x"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encoding_and_compression_show_in_the_file_whatever_its_name(
    tmp_path: Path, encoding: str, packed: bool
) -> None:
    data = "name,n\nZürich,1\n東京,2\n".encode(encoding)
    path = _csv(tmp_path, gzip.compress(data) if packed else data)

    table = pq.read_table(parquet_of_csv(path, config=CsvConfig(), cache_dir=tmp_path / "cache", on_error="fail"))

    assert table.to_pydict() == {"name": ["Zürich", "東京"], "n": [1, 2]}


def test_encoding_that_does_not_show_is_named(tmp_path: Path) -> None:
    path = _csv(tmp_path, "name,n\nZürich,1\n".encode("windows-1252"))
    configs = [CsvConfig(encoding=name) for name in ("windows-1252", "ascii")]

    table = pq.read_table(parquet_of_csv(path, config=configs[0], cache_dir=tmp_path / "cache", on_error="fail"))

    assert table["name"].to_pylist() == ["Zürich"]
    with pytest.raises(DataError, match=r"log\.csv: the text is not UTF-8, or not in data\.csv\.encoding; .*codec"):
        parquet_of_csv(path, config=configs[1], cache_dir=tmp_path / "cache", on_error="fail")


@pytest.mark.parametrize("separator", ["\t", ";", "|", "\x01"])
def test_separator_shows_in_the_first_lines(tmp_path: Path, separator: str) -> None:
    rows = (("a", "b", "c"), ("1", "x,y", "p"), ("2", "z", "q,r"))
    path = _csv(tmp_path, "\n".join(separator.join(row) for row in rows) + "\n")

    table = pq.read_table(parquet_of_csv(path, config=CsvConfig(), cache_dir=tmp_path / "cache", on_error="fail"))

    assert table.to_pydict() == {"a": [1, 2], "b": ["x,y", "z"], "c": ["p", "q,r"]}


def test_given_null_values_count_in_every_column_and_alone(tmp_path: Path) -> None:
    path = _csv(tmp_path, "n,city\n1,void\nvoid,NULL\n3,\n")
    config = CsvConfig(null_values=("void",))

    table = pq.read_table(parquet_of_csv(path, config=config, cache_dir=tmp_path / "cache", on_error="fail"))

    assert table.to_pydict() == {"n": [1, None, 3], "city": [None, "NULL", ""]}


def test_given_names_stand_for_the_first_line_or_where_there_is_none(tmp_path: Path) -> None:
    path = _csv(tmp_path, '"a\nb",c\n1,2\n')
    names = ("x", "y")
    configs = [CsvConfig(columns=names, header=header) for header in (True, False)]

    tables = [
        pq.read_table(parquet_of_csv(path, config=config, cache_dir=tmp_path / "cache", on_error="fail"))
        for config in (CsvConfig(), *configs)
    ]

    assert tables[0].to_pydict() == {"a\nb": [1], "c": [2]}
    assert tables[1].to_pydict() == {"x": [1], "y": [2]}
    assert tables[2].to_pydict() == {"x": ["a\nb", "1"], "y": ["c", "2"]}
    with pytest.raises(DataError, match=r"log\.csv: has 2 columns, but data\.csv\.columns names 1; name all of them"):
        parquet_of_csv(path, config=CsvConfig(columns=("x",)), cache_dir=tmp_path / "cache", on_error="fail")


def test_column_of_nothing_but_marks_is_vague_text(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a,b,c\n1,NA,\n2,NA,\n")

    copy = parquet_of_csv(path, config=CsvConfig(), cache_dir=tmp_path / "cache", on_error="fail")

    assert pq.read_table(copy)["b"].to_pylist() == ["NA", "NA"]
    assert pq.read_schema(copy).field("c").type == pa.null()
    assert vague_columns(pq.read_metadata(copy)) == (1,)


def test_compressed_file_gives_the_same_rows(tmp_path: Path) -> None:
    plain = _csv(tmp_path, "a,b\n1,x\n2,y\n")
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))

    tables = [
        pq.read_table(parquet_of_csv(path, config=CsvConfig(), cache_dir=tmp_path, on_error="fail"))
        for path in (plain, packed)
    ]

    assert tables[0].equals(tables[1])


def test_file_is_converted_once_until_it_changes(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a\n1\n")
    first = parquet_of_csv(path, config=CsvConfig(), cache_dir=tmp_path / "cache", on_error="fail")
    made = first.stat().st_mtime_ns

    again = parquet_of_csv(path, config=CsvConfig(), cache_dir=tmp_path / "cache", on_error="fail")
    os.utime(path, ns=(0, 0))
    changed = parquet_of_csv(path, config=CsvConfig(), cache_dir=tmp_path / "cache", on_error="fail")

    assert again == first
    assert again.stat().st_mtime_ns == made
    assert changed != first


def test_damaged_copy_is_made_anew(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a\n1\n")
    copy = parquet_of_csv(path, config=CsvConfig(), cache_dir=tmp_path, on_error="fail")
    copy.write_bytes(copy.read_bytes()[:-5])

    table = pq.read_table(parquet_of_csv(path, config=CsvConfig(), cache_dir=tmp_path, on_error="fail"))

    assert table["a"].to_pylist() == [1]


def test_nothing_is_left_behind_when_a_conversion_fails(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a,b\n1,2\n3\n")

    with pytest.raises(DataError):
        parquet_of_csv(path, config=CsvConfig(), cache_dir=tmp_path / "cache", on_error="fail")

    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"log\.csv: not a readable CSV file: Empty CSV file; mend the file, or set data\.on_error to skip"),
        ("a,b\n1,2\n3\n", r"log\.csv: not a readable CSV file: .*Row #3: Expected 2 columns, got 1: 3"),
        (b"a,b\n1,\xff\xfe\n", r"log\.csv, row 2 .*, column 'b': the text is not UTF-8, or not in data\.csv\.encoding"),
        (b"a,\xff\n1,2\n", r"log\.csv: the text is not UTF-8, or not in data\.csv\.encoding; name its encoding there"),
        (b"PK\3\4\0\0\0\1\2\3\4", r"log\.csv: not a text file, it holds zero bytes; if it is one, name data\.csv"),
        ("a::b\n1::2\n", r"log\.csv: cannot tell what separates .*, 'a::b'; name it in data\.csv\.separator"),
    ],
)
def test_unreadable_file_is_an_error_that_names_it(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = _csv(tmp_path, text)

    with pytest.raises(DataError, match=message):
        parquet_of_csv(path, config=CsvConfig(), cache_dir=tmp_path / "cache", on_error="fail")


def test_cut_compressed_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(os.urandom(1000).hex().encode())[:-100])

    with pytest.raises(DataError, match=r"log\.csv\.gz: not a readable CSV file: Truncated compressed stream"):
        parquet_of_csv(path, config=CsvConfig(), cache_dir=tmp_path / "cache", on_error="fail")


def test_cell_that_does_not_fit_in_a_later_block_widens_the_whole_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_cache, "BLOCK_BYTES", 4096)
    path = _csv(tmp_path, "a,b,c,d\n" + "1,2,,x\n" * 2000 + "0.5,abc,7,y\n")

    table = pq.read_table(parquet_of_csv(path, config=CsvConfig(), cache_dir=tmp_path / "cache", on_error="fail"))

    assert table.schema.types == [pa.float64(), pa.string(), pa.int64(), pa.string()]
    assert table["a"].to_pylist() == [1.0] * 2000 + [0.5]
    assert table["b"].to_pylist() == ["2"] * 2000 + ["abc"]
    assert table["c"].to_pylist() == [None] * 2000 + [7]


def test_skipped_rows_are_counted_and_told_once_where_the_file_is_read_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(csv_cache, "BLOCK_BYTES", 4096)
    path = _csv(tmp_path, "a,b\n1\n" + "1,2\n" * 2000 + "7\nx,3\n")

    copy = parquet_of_csv(path, config=CsvConfig(), cache_dir=tmp_path / "cache", on_error="skip")

    assert num_skipped_rows(pq.read_metadata(copy)) == 2
    assert [record.getMessage().partition("log.csv")[2] for record in caplog.records] == [
        ", row 2: 1 cells, expected 2; left out",
        ", row 2003: 1 cells, expected 2; left out",
    ]


def test_rows_with_a_wrong_number_of_cells_are_skipped_and_counted(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a,b\n1,2\n3\n4,5,6\n7,8\n")

    copy = parquet_of_csv(path, config=CsvConfig(), cache_dir=tmp_path / "cache", on_error="skip")

    assert pq.read_table(copy)["a"].to_pylist() == [1, 7]
    assert num_skipped_rows(pq.read_metadata(copy)) == 2


def test_cache_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a\n1\n")

    with pytest.raises(DataError, match=r"cannot write the Parquet copy of .*log\.csv .*; set data\.cache_dir"):
        parquet_of_csv(path, cache_dir=path / "cache", config=CsvConfig(), on_error="fail")


@pytest.mark.slow
def test_two_processes_convert_the_same_file_at_once(tmp_path: Path) -> None:
    path = _csv(tmp_path, "a,b\n" + "1,2\n" * 200_000)
    context = multiprocessing.get_context("spawn")

    with context.Pool(2) as pool:
        jobs = [
            pool.apply_async(
                parquet_of_csv, (path,), {"config": CsvConfig(), "cache_dir": tmp_path / "cache", "on_error": "fail"}
            )
            for _ in range(4)
        ]
        copies = [job.get(timeout=120) for job in jobs]

    assert len(set(copies)) == 1
    assert list((tmp_path / "cache").iterdir()) == [copies[0]]
    assert pq.read_metadata(copies[0]).num_rows == 200_000
