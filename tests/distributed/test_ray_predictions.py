"""Prediction in Ray workers: the parts and the errors are those of one process."""

from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipelines.predict import parts_on_ray
from recmoe.cli.app import app
from recmoe.data.files import find_files
from recmoe.errors import DataError
from recmoe.runs.prediction_parts import write_prediction_parts

pytestmark = [
    pytest.mark.cluster,
    # Ray's own code, and sockets that it leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def log(shop_log: pa.Table, tmp_path: Path) -> Path:
    pq.write_table(shop_log, tmp_path / "log.parquet")
    return tmp_path / "log.parquet"


def test_parts_of_workers_are_those_of_one_process(bundle_path: Path, log: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    write_prediction_parts(bundle_path, [str(log)], here, rows_per_part=30, is_quiet=True)
    for damaged in ("part-00002.parquet", "part-00005.parquet"):
        (here / damaged).rename(here / f".{damaged}")

    written = write_prediction_parts(
        bundle_path, [str(log)], there, rows_per_part=30, is_quiet=True, map_parts=partial(parts_on_ray, 2, there)
    )
    completed = write_prediction_parts(
        bundle_path, [str(log)], here, rows_per_part=30, is_quiet=True, map_parts=partial(parts_on_ray, 2, here)
    )

    assert (written.num_parts, written.num_found) == (7, 0)
    assert (completed.num_parts, completed.num_found) == (7, 5)
    one, two = (pq.read_table(list(find_files([str(folder)]))) for folder in (here, there))
    assert one.drop(["ctr", "cvr", "ctcvr", "score"]) == two.drop(["ctr", "cvr", "ctcvr", "score"])
    for name in ("ctr", "cvr", "ctcvr", "score"):
        # Workers compute with one thread each.
        assert one[name].to_pylist() == pytest.approx(two[name].to_pylist(), rel=1e-5)


def test_file_that_workers_cannot_read_is_named(bundle_path: Path, log: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    whole = log.read_bytes()
    log.write_bytes(whole[:4] + bytes(2000) + whole[2004:])

    with pytest.raises(DataError, match=r"log\.parquet"):
        write_prediction_parts(bundle_path, [str(log)], made, is_quiet=True, map_parts=partial(parts_on_ray, 2, made))


def test_command_predicts_in_workers(bundle_path: Path, log: Path, tmp_path: Path) -> None:
    command = ["predict", str(bundle_path), "--data", str(log), "--workers", "2", "--to"]

    refused = CliRunner().invoke(app, [*command, str(tmp_path / "scores.parquet")])
    first = CliRunner().invoke(app, [*command, str(tmp_path / "scores")], catch_exceptions=False)
    again = CliRunner().invoke(app, [*command, str(tmp_path / "scores")], catch_exceptions=False)

    assert refused.exit_code == 2
    assert "workers write a folder of parts" in refused.output
    assert f"wrote 200 rows of ctr, cvr, ctcvr and score to {tmp_path}/scores, 1 part\n" == first.stdout
    assert f"{tmp_path}/scores, 1 part, 1 of them there already\n" in again.stdout
    assert pq.read_table(tmp_path / "scores" / "part-00000.parquet").num_rows == 200
