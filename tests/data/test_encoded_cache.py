"""Tests of EncodedCache, EncodedRows and RowFormat: what is kept on disk equals what is encoded anew."""

import errno
import json
import mmap
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from recmoe.data.encoded_cache import EncodedCache
from recmoe.data.encoded_rows import EncodedRows, gathered, pieces
from recmoe.data.loader import BatchLoader
from recmoe.data.parquet import ParquetStream
from recmoe.data.row_format import MAX_INT32, RowFormat
from recmoe.errors import DataError
from recmoe.features.batch import Batch
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.labels import LabelColumn
from recmoe.features.schema import FeatureSchema

FEATURES: dict[str, Any] = {
    "user": {"kind": "id", "side": "user"},
    "tags": {"kind": "id_list", "pooling": "sum"},
    "age": {"kind": "numeric", "forms": ["value", "bucket", "vector"]},
    "item": {"kind": "id", "encoding": {"kind": "hash", "num_buckets": 5}},
    "shown": {"kind": "id_list", "table": "item", "separator": "|", "encoding": {"kind": "hash", "num_buckets": 5}},
    "slot": {"kind": "id", "encoding": {"kind": "index", "num_ids": 9}},
    "price": {"kind": "numeric", "log1p": True},
}
HISTORY: dict[str, Any] = {
    "kind": "sequence",
    "columns": {"item": {"column": "seen", "table": "item"}, "slot": {"column": "seen_slots"}},
    "time": "seen_at",
    "max_length": 3,
    "separator": "|",
}


def write_log(path: Path, num_rows: int, *, seed: int, rows_per_group: int = 7) -> Path:
    """Impressions with lists, missing values and missing labels; of CSV, lists are separated strings."""
    random = np.random.default_rng(seed)
    words = ["red", "blue", "wool", "silk"]
    tags = [None if random.random() < 0.2 else words[: random.integers(0, 5)] for _ in range(num_rows)]
    click = random.integers(0, 2, num_rows)
    seen = [random.integers(0, 30, random.integers(0, 6)).tolist() for _ in range(num_rows)]
    table = pa.table(
        {
            "visit": random.integers(0, 9, num_rows),
            "user": pa.array([f"u{i}" for i in random.integers(0, 9, num_rows)], mask=random.random(num_rows) < 0.1),
            "tags": pa.array(["|".join(t or []) for t in tags] if path.suffix == ".csv" else tags),
            "age": pa.array(random.integers(18, 70, num_rows), mask=random.random(num_rows) < 0.1),
            "item": random.integers(0, 30, num_rows),
            "shown": ["|".join(map(str, range(random.integers(0, 4)))) for _ in range(num_rows)],
            "slot": random.integers(0, 9, num_rows),
            "price": random.gamma(2.0, 9.0, num_rows),
            "click": pa.array(click, mask=random.random(num_rows) < 0.2),
            "seconds": random.random(num_rows) * click,
            "city": [f"c{i}" for i in random.integers(0, 3, num_rows)],
            "seen": ["|".join(map(str, items)) for items in seen],
            "seen_slots": ["|".join(str(item % 4) for item in items) for items in seen],
            "seen_at": ["|".join(str(item * 0.5) for item in items) for items in seen],
        }
    )
    if path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        pq.write_table(table, path, row_group_size=rows_per_group)
    return path


def make_stream(*paths: Path, **options: Any) -> ParquetStream:
    settings = {"seed": 5, "shuffle_rows": 20, "cache_dir": paths[0].parent / "csv", **options}
    return ParquetStream([str(path) for path in paths], **settings)


def make_encoder(stream: ParquetStream, **changes: Any) -> FeatureEncoder:
    features = {name: {**FEATURES.get(name, {}), **changes.get(name, {})} for name in {**FEATURES, **changes}}
    if stream.files[0].suffix == ".csv":
        features["tags"] = {**features["tags"], "separator": "|"}
    schema = FeatureSchema.model_validate({"width": 4, "group": "visit", "features": features})
    labels = [LabelColumn("click", is_binary=True), LabelColumn("seconds", is_binary=False)]
    return FeatureEncoder.fit(schema, stream.chunks(batch_size=100), labels)


def keep(folder: Path, stream: ParquetStream, encoder: FeatureEncoder, *, batch_size: int = 13) -> EncodedRows:
    loader = BatchLoader(stream, encoder, batch_size=batch_size, num_threads=2)
    return EncodedCache(folder, encoder).ensure(stream, lambda: (batch for batch, _, _ in loader.all_rows()))


def same(batch: Batch, other: Batch) -> bool:
    """Bit for bit, NaN and types included."""
    pairs = [
        (batch.dense_BF, other.dense_BF),
        (batch.lengths_KB, other.lengths_KB),
        (batch.values, other.values),
        (batch.labels_BL, other.labels_BL),
        (batch.groups_B, other.groups_B),
        (batch.ages, other.ages),
    ]
    return all(
        (a is None and b is None)
        or (a is not None and b is not None and a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes())
        for a, b in pairs
    )


def cut(path: Path) -> Path:
    """Damage in the middle of the file's second row group."""
    group = pq.read_metadata(path).row_group(1)
    data = bytearray(path.read_bytes())
    start = group.column(0).data_page_offset
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(data)
    return path


@pytest.fixture(params=["one file", "several files", "CSV", "damaged row group", "one window"])
def stream(request: pytest.FixtureRequest, tmp_path: Path) -> ParquetStream:
    if request.param == "one file":
        return make_stream(write_log(tmp_path / "a.parquet", 101, seed=0))
    if request.param == "several files":
        sizes = enumerate([40, 3, 58])
        return make_stream(*(write_log(tmp_path / f"{i}.parquet", size, seed=i) for i, size in sizes))
    if request.param == "CSV":
        return make_stream(write_log(tmp_path / "a.csv", 90, seed=0))
    if request.param == "one window":
        return make_stream(write_log(tmp_path / "a.parquet", 101, seed=0), shuffle_rows=1000)
    paths = [cut(write_log(tmp_path / "a.parquet", 60, seed=0)), write_log(tmp_path / "b.parquet", 41, seed=1)]
    return make_stream(*paths, on_error="skip")


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 8), (2, 5), (3, 12)])
def test_batches_of_the_cache_are_those_of_the_files(
    stream: ParquetStream, world_size: int, batch_size: int, tmp_path: Path
) -> None:
    encoder = make_encoder(stream, history=HISTORY)
    rows = keep(tmp_path / "encoded", stream, encoder)
    middle = stream.advance(stream.start(1), num_steps=1, world_size=world_size, batch_size=batch_size)

    for cursor in (stream.start(), middle):
        for rank in range(world_size):
            share = {"batch_size": batch_size, "rank": rank, "world_size": world_size}
            read = list(BatchLoader(stream, encoder, **share).epoch(cursor))
            kept = list(BatchLoader(stream, encoder, **share, encoded=rows).epoch(cursor))

            assert len(kept) == len(read) > 0
            assert all(map(same, kept, read))


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("extra", [[], ["city", "price"]])
def test_all_rows_of_the_cache_are_those_of_the_files(
    stream: ParquetStream, world_size: int, extra: list[str], tmp_path: Path
) -> None:
    encoder = make_encoder(stream, history=HISTORY)
    rows = keep(tmp_path / "encoded", stream, encoder)

    for rank in range(world_size):
        share = {"batch_size": 16, "rank": rank, "world_size": world_size}
        read = list(BatchLoader(stream, encoder, **share).all_rows(extra_columns=extra))
        kept = list(BatchLoader(stream, encoder, **share, encoded=rows).all_rows(extra_columns=extra))

        assert [num_real for _, num_real, _ in kept] == [num_real for _, num_real, _ in read]
        assert [table for _, _, table in kept] == [table for _, _, table in read]
        assert all(same(batch, other) for (batch, _, _), (other, _, _) in zip(kept, read, strict=True))


def test_batches_are_the_same_whatever_the_number_of_threads(tmp_path: Path) -> None:
    stream = make_stream(write_log(tmp_path / "a.parquet", 101, seed=0))
    encoder = make_encoder(stream, history=HISTORY)

    one, four = (list(BatchLoader(stream, encoder, batch_size=8, num_threads=n).epoch(stream.start())) for n in (1, 4))

    assert len(four) == len(one) == 12
    assert all(map(same, four, one))


def test_ids_of_a_table_beyond_int32_are_kept_whole(tmp_path: Path) -> None:
    stream = make_stream(write_log(tmp_path / "a.parquet", 40, seed=0))
    encoding = {"kind": "hash", "num_buckets": 1 << 40}
    encoder = make_encoder(stream, item={"encoding": encoding}, shown={"encoding": encoding})
    rows = keep(tmp_path / "encoded", stream, encoder)

    (read, _, _) = next(iter(BatchLoader(stream, encoder, batch_size=40).all_rows()))
    kept = rows.batch(np.arange(40))

    assert same(kept, read)
    assert int(kept.values.max()) > MAX_INT32
    assert RowFormat.of_encoder(encoder).dtype["wide_id"].shape == (1,)
    assert [kind.itemsize for kind in RowFormat.of_encoder(encoder).list_types] == [4, 8]


def test_rows_without_a_group_and_lists_without_an_id_can_be_kept(tmp_path: Path) -> None:
    table = pa.table({"n": [1.0, 2.0, 3.0], "tags": pa.array([[], None, []], pa.list_(pa.string())), "y": [0, 1, 0]})
    pq.write_table(table, tmp_path / "a.parquet")
    stream = make_stream(tmp_path / "a.parquet")
    schema = FeatureSchema.model_validate(
        {"width": 4, "features": {"n": {"kind": "numeric"}, "tags": FEATURES["tags"]}}
    )
    encoder = FeatureEncoder.fit(schema, [table], [LabelColumn("y", is_binary=True)])
    rows = keep(tmp_path / "encoded", stream, encoder)

    loader = BatchLoader(stream, encoder, batch_size=2, encoded=rows)
    batches = [batch for batch, _, _ in loader.all_rows()]

    assert all(map(same, batches, (b for b, _, _ in BatchLoader(stream, encoder, batch_size=2).all_rows())))
    assert [batch.groups_B for batch in batches] == [None, None]


def test_rows_that_are_there_are_not_encoded_again(tmp_path: Path) -> None:
    stream = make_stream(write_log(tmp_path / "a.parquet", 30, seed=0))
    encoder = make_encoder(stream)
    first = keep(tmp_path / "encoded", stream, encoder)

    def not_again() -> Iterator[Batch]:
        raise AssertionError("encoded again")

    second = EncodedCache(tmp_path / "encoded", encoder).ensure(stream, not_again)

    assert first.folder == second.folder
    assert second.num_bytes == sum(
        (second.folder / name).stat().st_size for name in ("rows.bin", "list_0.bin", "list_1.bin")
    )


def test_others_wait_for_the_one_that_encodes(tmp_path: Path) -> None:
    stream = make_stream(write_log(tmp_path / "a.parquet", 30, seed=0))
    encoder = make_encoder(stream)
    started = []

    def batches() -> Iterator[Batch]:
        started.append(1)
        yield from (batch for batch, _, _ in BatchLoader(stream, encoder, batch_size=4).all_rows())

    threads = [
        threading.Thread(target=lambda: EncodedCache(tmp_path / "encoded", encoder).ensure(stream, batches))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert started == [1]


@pytest.mark.parametrize("kind", ["files", "encoder"])
def test_rows_of_other_files_or_another_encoder_are_not_used(kind: str, tmp_path: Path) -> None:
    path = write_log(tmp_path / "a.parquet", 30, seed=0)
    stream = make_stream(path)
    encoder = make_encoder(stream)
    keep(tmp_path / "encoded", stream, encoder)
    if kind == "files":
        # As large and as many rows as before: only the time tells.
        pq.write_table(pq.read_table(path), path, row_group_size=7)
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        stream = make_stream(path)
    else:
        encoder = make_encoder(stream, price={"log1p": False})

    assert EncodedCache(tmp_path / "encoded", encoder).open(stream) is None


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "rows.bin").write_bytes(b"1234"), r"rows\.bin has 4 bytes, not \d+"),
        (lambda folder: (folder / "list_1.bin").unlink(), r"FileNotFoundError: .*list_1\.bin"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "JSONDecodeError"),
        (lambda folder: (folder / "manifest.json").unlink(), r"FileNotFoundError: .*manifest\.json"),
        (lambda folder: (folder / "manifest.json").write_text('{"files": {}}'), r"manifest\.json tells of other rows"),
        (lambda folder: _flip(folder / "rows.bin"), r"the content of rows\.bin has changed"),
        (lambda folder: _flip(folder / "list_0.bin"), r"the content of list_0\.bin has changed"),
    ],
)
def test_damaged_rows_are_told_and_made_again(
    damage: Any, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stream = make_stream(write_log(tmp_path / "a.parquet", 30, seed=0))
    encoder = make_encoder(stream)
    before = keep(tmp_path / "encoded", stream, encoder).batch(np.arange(30))
    (folder,) = (path for path in (tmp_path / "encoded").iterdir() if path.is_dir())
    damage(folder)

    after = keep(tmp_path / "encoded", stream, encoder)

    assert same(after.batch(np.arange(30)), before)
    (record,) = caplog.records
    assert re.search(f"^{re.escape(str(folder))}: the encoded rows are damaged and .* not used: {told}", record.message)


def test_half_written_rows_are_removed_and_never_used(tmp_path: Path) -> None:
    stream = make_stream(write_log(tmp_path / "a.parquet", 30, seed=0))
    encoder = make_encoder(stream)
    cache = EncodedCache(tmp_path / "encoded", encoder)

    def killed() -> Iterator[Batch]:
        yield next(iter(BatchLoader(stream, encoder, batch_size=8).all_rows()))[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.ensure(stream, killed)
    left = [path.name for path in cache.folder.iterdir() if path.is_dir()]
    # What a process leaves that is killed.
    (cache.folder / f".{cache.path(stream).name}.part").mkdir()
    (cache.folder / f".{cache.path(stream).name}.part" / "rows.bin").write_bytes(b"half")

    rows = keep(tmp_path / "encoded", stream, encoder)

    assert left == []
    assert rows.num_rows == 30
    assert [path for path in cache.folder.iterdir() if path.is_dir()] == [rows.folder]


def test_full_disk_is_found_before_anything_is_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = make_stream(write_log(tmp_path / "a.parquet", 30, seed=0))
    encoder = make_encoder(stream)
    num_bytes = []

    def full(*extent: int) -> None:
        num_bytes.append(extent[-1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        DataError,
        match=r"encoded: cannot keep the encoded rows \(\[Errno 28\] No space left on device\); set data\.cache_dir "
        "to a folder with room, or data.encoded_cache to off",
    ):
        keep(tmp_path / "encoded", stream, encoder)

    assert num_bytes == [30 * RowFormat.of_encoder(encoder).dtype.itemsize]
    assert not any(path.is_dir() for path in (tmp_path / "encoded").iterdir())


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    stream = make_stream(write_log(tmp_path / "a.parquet", 30, seed=0))
    (tmp_path / "encoded").write_text("a file")

    with pytest.raises(DataError, match=r"encoded: cannot keep the encoded rows \(\[Errno 17\] File exists"):
        keep(tmp_path / "encoded", stream, make_encoder(stream))


def test_manifest_says_what_the_rows_were_made_from(tmp_path: Path) -> None:
    stream = make_stream(write_log(tmp_path / "a.parquet", 30, seed=0))
    encoder = make_encoder(stream)

    rows = keep(tmp_path / "encoded", stream, encoder)

    manifest = json.loads((rows.folder / "manifest.json").read_text())
    assert (manifest["encoder"], manifest["source"]) == (encoder.fingerprint, stream.revision)
    assert manifest["num_rows"] == 30
    assert set(manifest["files"]) == {"rows.bin", "list_0.bin", "list_1.bin"}


def test_windows_are_given_back_once_no_batch_needs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = make_stream(write_log(tmp_path / "a.parquet", 30, seed=0, rows_per_group=10))
    encoder = make_encoder(stream)
    rows = keep(tmp_path / "encoded", stream, encoder)
    events: list[Any] = []
    batch, advise = rows.batch, rows._advise

    def noted_batch(rows_B: Any) -> Batch:
        events.append(rows_B.tolist())
        return batch(rows_B)

    def noted_advice(advice: int, ranges: list[tuple[int, int]]) -> None:
        if ranges:
            events.append(("needs" if advice == mmap.MADV_WILLNEED else "is done with", ranges))
        advise(advice, ranges)

    monkeypatch.setattr(rows, "batch", noted_batch)
    monkeypatch.setattr(rows, "_advise", noted_advice)
    list(gathered(rows, pieces([(0, 30)], 10), batch_size=8))

    assert events == [
        ("needs", [(0, 10)]),
        ("needs", [(10, 20)]),
        list(range(8)),
        ("needs", [(20, 30)]),
        list(range(8, 16)),
        ("is done with", [(0, 10)]),
        list(range(16, 24)),
        ("is done with", [(10, 20)]),
        list(range(24, 30)),
        ("is done with", [(20, 30)]),
    ]


def test_pages_can_be_asked_for_and_given_back(tmp_path: Path) -> None:
    stream = make_stream(write_log(tmp_path / "a.parquet", 3000, seed=0, rows_per_group=1000))
    encoder = make_encoder(stream)
    rows = keep(tmp_path / "encoded", stream, encoder, batch_size=1000)
    before = rows.batch(np.arange(3000))

    rows.will_need([(0, 1000), (2999, 3000)])
    rows.release([(0, 3000)])

    assert same(rows.batch(np.arange(3000)), before)
