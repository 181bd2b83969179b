"""What is learnt before a run: in one pass or in parts, in much memory or little, it is the same."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.config import config_from_dict
from recmoe.data.order import Interval
from recmoe.data.parquet import ParquetStream
from recmoe.errors import DataError, SchemaError
from recmoe.experiment import ExperimentConfig
from recmoe.features.encoder import FeatureEncoder
from recmoe.runs.encoder import check_rows, encoder_of, learn_encoder, learn_rows

ExperimentMaker = Callable[..., ExperimentConfig]

CHUNK, PIECE, NUM_ROWS = 100, 400, 1900


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows in many chunks, pieces and samples."""
    monkeypatch.setattr("recmoe.runs.encoder.CHUNK_ROWS", CHUNK)
    monkeypatch.setattr("recmoe.runs.encoder.PIECE_ROWS", PIECE)
    monkeypatch.setattr("recmoe.features.number_learner.PIECE_ROWS", PIECE)
    monkeypatch.setattr("recmoe.features.statistics.Sample.__init__.__defaults__", (300,))


def every_kind(folder: Path, **data: float) -> ExperimentConfig:
    """A log with lists, hashes, numbers and missing values, and tables that features share."""
    random = np.random.default_rng(0)
    lists = [list(random.integers(0, 900, random.integers(0, 4))) if i % 7 else None for i in range(NUM_ROWS)]
    rows = pa.table(
        {
            "user": pa.array([f"u{i}" if i % 11 else None for i in random.integers(0, 1500, NUM_ROWS)]),
            "item": random.integers(0, 900, NUM_ROWS),
            "bought": pa.array(lists, pa.list_(pa.int64())),
            "words": [f"w{i}|w{i + 1}" for i in random.integers(0, 300, NUM_ROWS)],
            "city": random.integers(0, 50, NUM_ROWS),
            "price": pa.array(random.lognormal(0, 2, NUM_ROWS), mask=random.random(NUM_ROWS) < 0.2),
            "age": random.normal(0, 1, NUM_ROWS),
            "click": random.integers(0, 2, NUM_ROWS),
            "unread": np.zeros(NUM_ROWS),
        }
    )
    # Row groups and files end in the middle of chunks and pieces.
    pq.write_table(rows.slice(0, 1150), folder / "a.parquet", row_group_size=170)
    pq.write_table(rows.slice(1150), folder / "b.parquet", row_group_size=230)
    forms = ["value", "bucket", "vector"]
    features = {
        "user": {"kind": "id", "missing": "nobody", "encoding": {"kind": "vocabulary", "min_count": 2}},
        "item": {"kind": "id", "table": "items", "encoding": {"kind": "vocabulary", "max_size": 500}},
        "bought": {"kind": "id_list", "table": "items", "encoding": {"kind": "vocabulary", "max_size": 500}},
        "words": {"kind": "id_list", "separator": "|"},
        "city": {"kind": "id", "encoding": {"kind": "hash", "num_buckets": 20}},
        "price": {"kind": "numeric", "log1p": True, "forms": forms},
        "age": {"kind": "numeric", "forms": forms, "buckets": {"kind": "quantile", "count": 7}},
    }
    values = {
        "name": "all",
        "data": {"train": str(folder / "*.parquet"), **data},
        "inputs": {"width": 4, "features": features},
        "tasks": {"ctr": {"kind": "binary", "label": "click"}},
        "tracking": {"kind": "none"},
    }
    return config_from_dict(ExperimentConfig, values)


def opened(config: ExperimentConfig, folder: Path) -> ParquetStream:
    return config.data.build("train", seed=0, cache_dir=folder)


def contents(encoder: FeatureEncoder, folder: Path) -> dict[str, bytes]:
    encoder.save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_parts_merged_in_any_order_are_the_whole_bit_for_bit(tmp_path: Path, order: list[int]) -> None:
    config = every_kind(tmp_path)
    stream = opened(config, tmp_path)
    parts: list[Interval] = [(0, 800), (800, 1200), (1200, NUM_ROWS)]
    whole = learn_encoder(config, stream, scratch=tmp_path / "whole")

    learners = []
    for part in order:
        learner = learn_rows(config, stream, parts[part], scratch=tmp_path / "parts", num_bytes=20_000)
        learner.ids.spill()
        learners.append(pickle.loads(pickle.dumps(learner)))
    first, *others = learners
    for other in others:
        first.merge(other)
    merged = encoder_of(config, stream, first)

    assert len(first.ids.files) > 10
    assert merged.fingerprint == whole.fingerprint
    assert contents(merged, tmp_path / "x") == contents(whole, tmp_path / "y")


def test_little_memory_changes_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    much, little = every_kind(tmp_path), every_kind(tmp_path, memory_gb=20e-6)
    stream = opened(much, tmp_path)

    encoders = [learn_encoder(config, stream, scratch=tmp_path / "scratch") for config in (much, little)]

    assert encoders[0].fingerprint == encoders[1].fingerprint
    assert not (tmp_path / "scratch").exists()


def test_wrong_row_of_a_part_is_named_as_in_the_file(tmp_path: Path) -> None:
    config = every_kind(tmp_path)
    rows = pq.read_table(tmp_path / "b.parquet")
    clicks = rows["click"].to_pylist()
    place = rows.column_names.index("click")
    pq.write_table(rows.set_column(place, "click", [[*clicks[:300], 2, *clicks[301:]]]), tmp_path / "b.parquet")

    with pytest.raises(DataError, match=r"b\.parquet, row 300 of the file: label column 'click' holds 2 in row 300;"):
        learn_rows(config, opened(config, tmp_path), (1200, NUM_ROWS), scratch=tmp_path / "scratch", num_bytes=10**9)


def test_missing_column_is_told_with_all_that_are_there(make_experiment: ExperimentMaker, tmp_path: Path) -> None:
    config = make_experiment(tmp_path, "inputs.features.hour.column=hours", "data.train=" + str(tmp_path / "x.parquet"))
    pq.write_table(pq.read_table(tmp_path / "train.parquet").append_column("zzz", [[0] * 200]), tmp_path / "x.parquet")

    with pytest.raises(
        SchemaError, match=r"x\.parquet: column 'hours' is missing.* did you mean 'hour'\? found: .*zzz"
    ):
        learn_encoder(config, opened(config, tmp_path), scratch=tmp_path / "scratch")


def test_every_rank_checks_its_share_of_the_rows(tmp_path: Path) -> None:
    config = every_kind(tmp_path)
    stream = opened(config, tmp_path)
    encoder = learn_encoder(config, stream, scratch=tmp_path / "scratch")
    pq.write_table(pq.read_table(tmp_path / "a.parquet").slice(0, 10), tmp_path / "c.parquet")
    rows = pq.read_table(tmp_path / "c.parquet").to_pydict()
    pq.write_table(pa.table({**rows, "click": [0] * 7 + [5] + [0] * 2}), tmp_path / "c.parquet")
    wrong = ParquetStream([str(tmp_path / "c.parquet")], seed=0, shuffle_rows=None, cache_dir=tmp_path)

    check_rows(wrong, encoder, rank=0, world_size=2)

    with pytest.raises(DataError, match=r"c\.parquet, row 7 of the file: label column 'click' holds 5"):
        check_rows(wrong, encoder, rank=1, world_size=2)
