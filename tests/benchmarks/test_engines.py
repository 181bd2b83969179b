"""The comparison of engines, of those that are installed with the project."""

import sys

import pytest

from benchmarks import engines


def test_every_precision_of_this_machine_has_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["engines", "--rounds", "1"])

    engines.main()

    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| torch")]
    assert rows[0][1].split()[-1] == "fp32"
    assert float(rows[0][4]) == 0
    assert all(0 < float(row[4]) < 5e-3 for row in rows[1:])
    assert all(float(cell.split("/")[0]) > 0 for row in rows for cell in row[2:4])
