"""Tests of find_files."""

from pathlib import Path

import pytest

from recmoe.data.files import find_files
from recmoe.errors import DataError


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folder_gives_its_data_files_in_order_and_nothing_else(tmp_path: Path) -> None:
    _touch(tmp_path, "b.csv", "a.parquet", "day=1/c.csv.gz", "notes.md", ".hidden.csv", "_SUCCESS", "_temporary/d.csv")

    files = find_files([str(tmp_path)])

    assert [file.relative_to(tmp_path).as_posix() for file in files] == ["a.parquet", "b.csv", "day=1/c.csv.gz"]


def test_files_come_in_the_order_of_the_patterns_and_once(tmp_path: Path) -> None:
    _touch(tmp_path, "a.parquet", "b.parquet", "_c.parquet", "notes.md")

    files = find_files([str(tmp_path / "b.parquet"), str(tmp_path / "*"), str(tmp_path / "_c.parquet")])

    assert [file.name for file in files] == ["b.parquet", "a.parquet", "_c.parquet"]


def test_file_by_several_paths_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path, "real/a.csv", "real/b.tsv.gz")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)

    files = find_files(["real/a.csv", str(tmp_path / "real"), "link", "./real/*"])

    assert [str(file) for file in files] == ["real/a.csv", f"{tmp_path}/real/b.tsv.gz"]


def test_text_file_is_data_only_where_it_is_named(tmp_path: Path) -> None:
    _touch(tmp_path, "log.txt", "readme.txt.gz", "a.jsonl", "b.ndjson.gz", "c.TSV")

    assert [file.name for file in find_files([str(tmp_path)])] == ["a.jsonl", "b.ndjson.gz", "c.TSV"]
    assert [file.name for file in find_files([str(tmp_path / "*")])] == ["a.jsonl", "b.ndjson.gz", "c.TSV"]
    assert [file.name for file in find_files([str(tmp_path / "log.txt")])] == ["log.txt"]
    assert [file.name for file in find_files([str(tmp_path / "*.txt.gz")])] == ["readme.txt.gz"]


def test_glob_that_matches_folders_gives_the_files_below_them(tmp_path: Path) -> None:
    _touch(tmp_path, "2024-01/a.csv", "2024-02/b.csv", "2025-01/c.csv")

    files = find_files([str(tmp_path / "2024-*")])

    assert [file.name for file in files] == ["a.csv", "b.csv"]


def test_name_with_brackets_is_a_file_before_it_is_a_glob(tmp_path: Path) -> None:
    _touch(tmp_path, "log[1].csv")

    files = find_files([str(tmp_path / "log[1].csv")])

    assert [file.name for file in files] == ["log[1].csv"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("gone.parquet", r"no data file matches '.*gone\.parquet'; there is no such file or folder"),
        ("*.csv", r"no data file matches '.*\*\.csv'; there is no such file or folder"),
        ("notes.md", r"no data file matches '.*notes\.md'; the name of a data file ends in one of \.parquet, \.csv"),
        ("empty", r"no data file matches '.*empty'; the folder holds no file that ends in one of \.parquet"),
    ],
)
def test_pattern_without_files_is_an_error_that_names_it(tmp_path: Path, pattern: str, message: str) -> None:
    _touch(tmp_path, "notes.md", "empty/notes.md", "a.parquet")

    with pytest.raises(DataError, match=message):
        find_files([str(tmp_path / "a.parquet"), str(tmp_path / pattern)])
