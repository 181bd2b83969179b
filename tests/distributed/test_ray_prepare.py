"""Preparation in Ray workers: the encoder and the errors are those of one process."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.prepare import ReadOnRay, reading_on_ray
from pipelines.ray_pool import see
from recmoe.config import config_from_dict
from recmoe.errors import DataError, TrainingError
from recmoe.experiment import ExperimentConfig
from recmoe.features.number_learner import PIECE_ROWS
from recmoe.features.schema import FeatureSchema
from recmoe.runs.encoder import ReadHere
from recmoe.runs.folder import RunFolder
from recmoe.runs.prepare import prepare_run
from recmoe.runs.splits import open_split

pytestmark = [
    pytest.mark.cluster,
    # Ray's own code, and sockets that it leaves to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NUM_ROWS = 2 * PIECE_ROWS + 1000
MEMORY_GB = 0.04
"""Less than a third of the log as Arrow tables; two thirds of it are for the two workers."""


@pytest.fixture(scope="module")
def reading() -> Iterator[ReadOnRay]:
    with reading_on_ray(num_workers=2) as found:
        yield found


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pieces of rows, most of whose ids occur once."""
    folder = tmp_path_factory.mktemp("log")
    random = np.random.default_rng(0)
    lengths = random.integers(0, 3, NUM_ROWS)
    tags = random.integers(0, 3_000_000, lengths.sum())
    offsets = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
    users = pa.array(random.integers(0, 1_500_000, NUM_ROWS)).cast(pa.string())
    rows = pa.table(
        {
            "user": pc.binary_join_element_wise("user", users, "-"),
            "tags": pa.ListArray.from_arrays(pa.array(offsets), pa.array(tags)),
            "words": pa.array(["a|b", "b|c", None, "d"] * (NUM_ROWS // 4)),
            "tag": random.integers(0, 3_000_000, NUM_ROWS),
            "price": pa.array(random.lognormal(0, 2, NUM_ROWS), mask=random.random(NUM_ROWS) < 0.1),
            "click": random.integers(0, 2, NUM_ROWS),
        }
    )
    pq.write_table(rows, folder / "train.parquet", row_group_size=60_000)
    pq.write_table(rows.slice(0, 1000), folder / "validation.parquet")
    assert rows.nbytes > 3 * MEMORY_GB * 1e9
    return folder


def experiment(log: Path, **data: str) -> ExperimentConfig:
    often = {"kind": "vocabulary", "min_count": 3}
    features = {
        "user": {"kind": "id", "side": "user", "encoding": often},
        "tags": {"kind": "id_list", "table": "tags", "encoding": often},
        "tag": {"kind": "id", "table": "tags", "missing": 0, "encoding": often},
        "words": {"kind": "id_list", "separator": "|", "encoding": {"kind": "hash", "num_buckets": 5}},
        "price": {"kind": "numeric", "log1p": True, "forms": ["value", "bucket", "vector"]},
    }
    paths = {"train": str(log / "train.parquet"), "validation": str(log / "validation.parquet"), **data}
    return config_from_dict(
        ExperimentConfig,
        {
            "name": "large",
            "data": {**paths, "memory_gb": MEMORY_GB},
            "inputs": {"features": features},
            "tasks": {"ctr": {"kind": "binary", "label": "click"}},
            "tracking": {"kind": "none"},
        },
    )


def test_encoder_of_many_workers_is_that_of_one_process(reading: ReadOnRay, log: Path, tmp_path: Path) -> None:
    config = experiment(log)

    here = prepare_run(config, tmp_path / "here", resume=False, reading=ReadHere())
    there = prepare_run(config, tmp_path / "there", resume=False, reading=reading)

    assert there.fingerprint == here.fingerprint
    files = sorted(path.name for path in (tmp_path / "here/encoder").iterdir())
    assert len(files) == 4
    for name in files:
        assert (tmp_path / "there/encoder" / name).read_bytes() == (tmp_path / "here/encoder" / name).read_bytes()
    assert RunFolder(tmp_path / "there").state == RunFolder(tmp_path / "here").state
    assert not RunFolder(tmp_path / "there").scratch.exists()


def test_ids_that_grow_and_ids_that_come_and_go_are_those_of_one_process(
    reading: ReadOnRay, log: Path, tmp_path: Path
) -> None:
    pq.write_table(pq.read_table(log / "validation.parquet").slice(0, 600), tmp_path / "monday.parquet")
    dynamic = {"kind": "dynamic", "capacity": 300, "admit_after": 1}
    features = {
        "user": {"kind": "id", "side": "user", "encoding": dynamic},
        "tag": {"kind": "id", "encoding": {"kind": "vocabulary", "max_size": 800}},
        "price": {"kind": "numeric"},
    }
    monday, tuesday = (
        experiment(log, train=str(path)).model_copy(
            update={"inputs": config_from_dict(FeatureSchema, {"features": features})}
        )
        for path in (tmp_path / "monday.parquet", log / "validation.parquet")
    )
    base = prepare_run(monday, tmp_path / "monday", resume=False, reading=ReadHere())

    here, there = (
        by.learn(tuesday, open_split(tuesday, RunFolder(tmp_path), "train"), scratch=tmp_path / "scratch", base=base)
        for by in (ReadHere(), reading)
    )

    assert there.fingerprint == here.fingerprint != base.fingerprint
    assert there.state.dynamic["user"].last == here.state.dynamic["user"].last
    assert len(here.state.vocabularies["tag"].ids) == 800
    assert here.state.vocabularies["tag"].ids.slice(0, 500) == base.state.vocabularies["tag"].ids.slice(0, 500)
    assert here.state.numbers == base.state.numbers


def test_wrong_row_is_told_as_in_one_process(reading: ReadOnRay, log: Path, tmp_path: Path) -> None:
    rows = pq.read_table(log / "validation.parquet")
    wrong = rows.set_column(rows.column_names.index("click"), "click", [[0] * 990 + [7] + [0] * 9])
    pq.write_table(wrong, tmp_path / "wrong.parquet")
    as_training = experiment(log, train=f"{tmp_path}/wrong.parquet")
    as_validation = experiment(tmp_path, train=f"{log}/validation.parquet", validation=f"{tmp_path}/wrong.parquet")
    message = r"wrong\.parquet, row 990 of the file: label column 'click' holds 7"

    for name, config in (("a", as_training), ("b", as_validation)):
        with pytest.raises(DataError, match=message):
            prepare_run(config, tmp_path / name, resume=False, reading=reading)


def test_share_of_a_worker_that_dies_is_done_again(reading: ReadOnRay, tmp_path: Path) -> None:
    folder = str(tmp_path)

    def square(number: int) -> int:
        if number == 2 and not os.path.exists(f"{folder}/died"):
            open(f"{folder}/died", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return number**2

    results = list(reading._pool.map(square, [1, 2, 3]))

    assert (tmp_path / "died").exists()
    assert results == [1, 4, 9]


def test_share_whose_workers_always_die_is_given_up(reading: ReadOnRay) -> None:
    def die(number: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(TrainingError, match=r"^workers of the preparation died 4 times \(.*\); if it was for want"):
        list(reading._pool.map(die, [1]))


def test_run_folder_that_a_node_does_not_see_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/run: node .+ does not see this folder; put --run-dir where all nodes see"):
        see(tmp_path / "run" / "scratch", named_by="--run-dir")
