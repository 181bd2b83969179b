import json
from pathlib import Path

import pytest

from recmoe.cli.output import print_columns, print_json


def test_numbers_stand_right_and_text_left(capsys: pytest.CaptureFixture[str]) -> None:
    print_columns(["split", "rows", "click"], [("train", 8000, 0.03125), ("test", 10, 0.5)])

    assert capsys.readouterr().out == ("split   rows   click\ntrain  8,000  0.0312\ntest      10  0.5000\n")


def test_number_that_is_not_there_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    print_columns(["day", "auc"], [("1", float("nan")), ("2", 0.5)])

    assert capsys.readouterr().out == "day     auc\n1         –\n2    0.5000\n"


def test_columns_without_rows_are_their_headers(capsys: pytest.CaptureFixture[str]) -> None:
    print_columns(["split", "rows"], [])

    assert capsys.readouterr().out == "split  rows\n"


def test_paths_in_json_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"config": Path("a/b.yaml")})

    assert json.loads(capsys.readouterr().out) == {"config": "a/b.yaml"}
