"""The log of the training benchmark: its shape, its rates, and what the truth behind it reaches."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.log import FLOAT_COLUMNS, ID_COLUMNS, LABELS, NUM_IDS, ClickLog, write_log
from recmoe.errors import DataError


@pytest.fixture(scope="module")
def log() -> ClickLog:
    return ClickLog(seed=0)


def test_ids_grow_from_ten_to_a_million_in_equal_ratios() -> None:
    ratios = np.array(NUM_IDS[11:]) / np.array(NUM_IDS[10:-1])

    assert (len(NUM_IDS), NUM_IDS[0], NUM_IDS[-1]) == (26, 10, 1_000_000)
    assert sum(NUM_IDS) == 2_709_697
    assert np.allclose(ratios, 1e5 ** (1 / 25), rtol=1e-3)


def test_ids_are_row_numbers_drawn_by_zipf_and_scattered(log: ClickLog) -> None:
    table = next(log.blocks("train", 50_000)).table

    for name, num_ids in zip(ID_COLUMNS, NUM_IDS, strict=True):
        ids = table[name].to_numpy()
        assert 0 <= ids.min() <= ids.max() < num_ids
    # Of ten ids the most frequent has 1 / (1 + 2^-1.1 + … + 10^-1.1) = 37 % of the rows, the next one 2^-1.1 of that.
    counts = np.bincount(table["id_00"].to_numpy(), minlength=10)
    first, second = np.sort(counts)[:-3:-1]
    assert first / 50_000 == pytest.approx(0.373, abs=0.01)
    assert second / first == pytest.approx(2**-1.1, abs=0.02)
    assert list(np.argsort(-counts)) != list(range(10))


def test_ids_of_a_row_are_independent(log: ClickLog) -> None:
    table = next(log.blocks("train", 50_000)).table

    frequent = [table[name].to_numpy() == np.bincount(table[name].to_numpy()).argmax() for name in ("id_03", "id_09")]

    assert np.corrcoef(*frequent)[0, 1] == pytest.approx(0.0, abs=0.02)


def test_same_seed_gives_the_same_rows_and_splits_differ(log: ClickLog) -> None:
    once, again = (next(each.blocks("test", 500)).table for each in (log, ClickLog(seed=0)))

    assert once == again
    assert once != next(log.blocks("validation", 500)).table
    assert once != next(ClickLog(seed=1).blocks("test", 500)).table


def test_a_tenth_of_the_rows_is_clicked_and_only_they_convert(log: ClickLog) -> None:
    rows = next(log.blocks("train", 100_000))
    is_click, is_conversion = (rows.table[name].to_numpy() == 1 for name in LABELS)

    assert is_click.mean() == pytest.approx(0.10, abs=0.005)
    assert is_conversion.mean() == pytest.approx(0.01, abs=0.002)
    assert not (is_conversion & ~is_click).any()
    assert (rows.conversion_N <= rows.click_N).all()
    assert rows.click_N.mean() == pytest.approx(is_click.mean(), abs=0.005)


def test_written_log_has_three_splits_and_knows_the_best_auc(tmp_path: Path) -> None:
    truth = write_log(tmp_path, num_rows=20_000)

    sizes = {split: pq.ParquetFile(tmp_path / f"{split}.parquet").metadata.num_rows for split in ("train", "test")}
    assert sizes == {"train": 17_000, "test": 2_000}
    assert pq.read_schema(tmp_path / "validation.parquet").names == [*ID_COLUMNS, *FLOAT_COLUMNS, *LABELS]
    assert truth["click_auc"] == pytest.approx(0.88, abs=0.03)
    assert truth["conversion_auc"] == pytest.approx(0.95, abs=0.05)


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs at least 1000 rows, got num_rows=999"):
        write_log(tmp_path, num_rows=999)
