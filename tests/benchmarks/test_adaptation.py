"""Domains that are held back, and differences by hand."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.adaptation import SPLITS, difference, hold_back


def test_every_fifth_domain_by_its_rows_is_held_back(tmp_path: Path) -> None:
    values = [name for place, name in enumerate("hgfedcba") for _ in range(place + 1)]
    for split in SPLITS:
        pq.write_table(pa.table({"education": values}), tmp_path / f"{split}.parquet")

    held = hold_back(tmp_path)

    assert held == ["c", "h"]
    assert set(pq.read_table(tmp_path / "test_held.parquet")["education"].to_pylist()) == {"c", "h"}
    assert set(pq.read_table(tmp_path / "train_rest.parquet")["education"].to_pylist()) == set("abdefg")


def test_difference_is_that_of_pairs_with_its_interval() -> None:
    # Differences 1, 2 and 3: deviation 1, Student's t with two degrees of freedom 4.303.
    mean, low, high = difference([0.0, 10.0, 20.0], [1.0, 12.0, 23.0])

    assert mean == pytest.approx(2.0)
    assert (low, high) == (pytest.approx(2 - 4.303 / 3**0.5, abs=1e-3), pytest.approx(2 + 4.303 / 3**0.5, abs=1e-3))
