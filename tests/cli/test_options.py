"""Tests of what several commands share."""

from pathlib import Path

import pytest

from recmoe.cli.options import with_expanded


def test_files_among_the_overrides_belong_to_the_option_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv", "day=2"):
        Path(name).touch()

    found = with_expanded(["a.csv"], ["b.csv", "seed=3", "day=2"])

    assert found == (["a.csv", "b.csv", "day=2"], ["seed=3"])
    assert with_expanded(None, ["b.csv"]) == ([], ["b.csv"])
    assert with_expanded(["*.csv"], None) == (["*.csv"], [])
