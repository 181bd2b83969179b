"""The benchmark of pre-training: which rows keep their labels, and that all is measured."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.pretraining import main, rows_of, write_labelled
from recmoe.data.synthetic import write_synthetic


def test_labelled_rows_are_some_of_the_training_rows_drawn_by_seed(tmp_path: Path) -> None:
    config = write_synthetic(tmp_path, num_rows=1000).config
    every = {tuple(row.values()) for row in pq.read_table(tmp_path / "train.parquet").drop("interests").to_pylist()}

    found = []
    for seed in (0, 0, 1):
        write_labelled(config, tmp_path / "labelled.parquet", num_rows=50, seed=seed)
        rows = pq.read_table(tmp_path / "labelled.parquet").drop("interests").to_pylist()
        found.append({tuple(row.values()) for row in rows})

    assert len(found[0]) == 50
    assert all(rows <= every for rows in found)
    assert found[0] == found[1] != found[2]


def test_difference_is_the_mean_over_seeds() -> None:
    pairs = [({"auc": 0.5}, {"auc": 0.6}), ({"auc": 0.7}, {"auc": 0.7})]

    ((metric, alone, after, difference, by_seed),) = rows_of(pairs)

    assert (metric, by_seed) == ("auc", "+0.1000 +0.0000")
    assert (alone, after, difference) == pytest.approx((0.6, 0.65, 0.05))


@pytest.mark.slow
def test_every_task_is_measured_with_and_without_a_pretraining(capsys: pytest.CaptureFixture[str]) -> None:
    short = "training.max_steps=4"

    assert main(["--rows", "2000", "--labelled", "200", "300", "--pretraining", short, "--training", short]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    for num_rows in ("200", "300"):
        for metric in ("ctr.auc[all]", "cvr.auc[click]", "ctcvr.auc[all]"):
            assert any(line.split()[:3] == ["synthetic", num_rows, metric] for line in lines)
