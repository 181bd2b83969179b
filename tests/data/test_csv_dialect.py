"""Tests of what a CSV file shows of how it is written."""

from pathlib import Path

import pytest

from recmoe.config import load_config
from recmoe.data.csv_config import CsvConfig
from recmoe.data.csv_dialect import settle
from recmoe.errors import ConfigError, DataError


def _settled(tmp_path: Path, text: str, config: CsvConfig | None = None) -> CsvConfig:
    path = tmp_path / "log.csv"
    path.write_text(text)
    return settle(path, config or CsvConfig())


@pytest.mark.parametrize(
    ("text", "decimal", "thousands"),
    [
        ("a,b\n1,2.5\n", ".", None),
        ('a,b\n1,"1,234.50"\n2,"5"\n3,NA\n', ".", ","),
        ("a;b\n1;1,5\n2;2,25\n", ",", None),
        ("a;b\n1;1.234,5\n2;25\n", ",", "."),
        ("a;b;c\n1;1.234,5;7,5\n2;25;1\n", ",", "."),
        ("a;b;c\n1;1,234;7,5\n2;2,500;1\n", ",", None),
        ("a;b\n1;1'234.5\n2;25\n", ".", "'"),
        # Numbers that are infinite or none are written alike in every style.
        ("a;b\n1;1,5\n2;inf\n3;-Infinity\n4;+NAN\n", ",", None),
        ("a;b\n1;1.234,5\n2;-inf\n", ",", "."),
        # A list of ids, and text.
        ('a,b\n1,"2,5"\n2,"7,9"\n', ".", None),
        ("a;b\n1;2,5,7\n2;7,9\n", ".", None),
        ("a;b\n1;Rome, Italy\n2;Oslo\n", ".", None),
    ],
)
def test_numbers_show_their_marks(tmp_path: Path, text: str, decimal: str, thousands: str | None) -> None:
    found = _settled(tmp_path, text)

    assert (found.decimal, found.thousands, found.header) == (decimal, thousands, True)
    assert found.is_settled


def test_number_that_may_be_two_stays_text_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = _settled(tmp_path, "a;b\n1;1,234\n2;5,678\n")

    assert (found.decimal, found.thousands) == (".", None)
    assert "log.csv: '1,234' may be a thousand, a fraction or a list, and stays text" in caplog.text


def test_numbers_in_two_styles_are_an_error_unless_one_is_given(tmp_path: Path) -> None:
    text = "a;b;c\n1;1.234,5;1,234.5\n"

    with pytest.raises(DataError, match=r"log\.csv: numbers are written in two ways, '1\.234,5' and '1,234\.5'; set"):
        _settled(tmp_path, text)
    assert _settled(tmp_path, text, CsvConfig(decimal=",")).thousands is None
    assert _settled(tmp_path, text, CsvConfig(thousands=".")).decimal == ","
    assert _settled(tmp_path, text, CsvConfig(thousands=",")).decimal == "."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("u1,1,phone\nu2,0,tv\n", "'1'"),
        ("u1,2026-01-31,x\nu2,2026-02-01,y\n", "'2026-01-31'"),
        ("u1,phone\nu2,tv\nu3,phone\n", "'phone'"),
    ],
)
def test_first_line_of_data_is_an_error_that_says_what_to_set(tmp_path: Path, text: str, shown: str) -> None:
    with pytest.raises(
        DataError,
        match=rf"log\.csv: the first line looks like data, not like names of columns \({shown}\); "
        r"name the columns in data\.csv\.columns, or set data\.csv\.header to true",
    ):
        _settled(tmp_path, text)
    assert _settled(tmp_path, text, CsvConfig(header=True)).header is True
    assert _settled(tmp_path, text, CsvConfig(columns=("a", "b", "c"))).header is False


@pytest.mark.parametrize("text", ["0,1,2\n7,8,9\n", "a,b\nx,y\na,b\n", "a\n", "item,price (EUR)\nx,1\n"])
def test_line_of_names_is_no_data(tmp_path: Path, text: str) -> None:
    assert _settled(tmp_path, text).header is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("encoding: klingon", r"csv\.yaml:1  encoding: no such encoding: klingon; name one such as utf-8"),
        ("header: false", r"csv\.yaml:1  columns: a file without a line of names needs their names here"),
        ("columns: [a, a]", r"csv\.yaml:1  columns: the same name is given twice"),
        ("{decimal: '.', thousands: '.'}", r"csv\.yaml:1  thousands: must differ from decimal"),
        ("thousands: x", r"csv\.yaml:1  thousands: expected a mark such as \. or , found x"),
        ("separator: '::'", r"csv\.yaml:1  separator: string should have at most 1 character"),
    ],
)
def test_config_that_fits_no_file_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "csv.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=message):
        load_config(CsvConfig, path)
