"""Tests of DataConfig and BatchLoader."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from recmoe.data.loader import BatchLoader, DataConfig
from recmoe.data.parquet import ParquetStream
from recmoe.errors import DataError, SchemaError
from recmoe.features.encoder import FeatureEncoder
from recmoe.features.kinds import IdFeature, NumericFeature
from recmoe.features.labels import LabelColumn
from recmoe.features.schema import FeatureSchema

WriteRows = Callable[..., Path]


def _stream(*paths: Path, **options: Any) -> ParquetStream:
    settings: dict[str, Any] = {"seed": 0, "shuffle_rows": 25, "cache_dir": paths[0].parent / "cache", **options}
    return ParquetStream([str(path) for path in paths], **settings)


def _encoder(stream: ParquetStream) -> FeatureEncoder:
    """Knows the row's number as a plain float, and the item."""
    schema = FeatureSchema(
        features={"n": NumericFeature(zscore=False), "item": IdFeature(width=4)},
    )
    labels = [LabelColumn(column="clicked", is_binary=True)]
    return FeatureEncoder.fit(schema, stream.chunks(batch_size=50), labels)


def _loader(*paths: Path, **options: Any) -> BatchLoader:
    stream = _stream(*paths)
    return BatchLoader(stream, _encoder(stream), **{"batch_size": 8, **options})


def _num_threads() -> int:
    return sum(thread.name.startswith(("prefetch", "read-ahead")) for thread in threading.enumerate())


def _bad_label_in(path: Path, *, row: int) -> None:
    """A label that is neither 0 nor 1, in a file that is otherwise good."""
    table = pq.read_table(path)
    labels = table["clicked"].to_pylist()
    labels[row] = 2
    pq.write_table(table.set_column(2, "clicked", pa.array(labels)), path, row_group_size=10)


def test_epoch_gives_the_rows_of_the_stream_encoded(write_rows: WriteRows) -> None:
    loader = _loader(write_rows("a.parquet", range(50)))
    cursor = loader.stream.start()

    batches = list(loader.epoch(cursor))

    tables = list(loader.stream.batches(cursor, rank=0, world_size=1, batch_size=8))
    assert len(batches) == len(tables) == 6
    for batch, table in zip(batches, tables, strict=True):
        assert batch.dense_BF[:, 0].tolist() == table["n"].to_pylist()
        assert batch.labels_BL[:, 0].tolist() == table["clicked"].to_pylist()


def test_loader_resumed_in_the_middle_gives_the_same_batches(write_rows: WriteRows) -> None:
    loader = _loader(write_rows("a.parquet", range(100)), rank=1, world_size=2)
    unbroken = list(loader.epoch(loader.stream.start()))

    cursor = loader.stream.advance(loader.stream.start(), num_steps=2, world_size=2, batch_size=8)
    resumed = list(loader.epoch(cursor))

    assert len(unbroken) == 6
    for batch, same in zip(resumed, unbroken[2:], strict=True):
        assert torch.equal(batch.dense_BF, same.dense_BF)
        assert torch.equal(batch.values, same.values)
        assert torch.equal(batch.labels_BL, same.labels_BL)


@pytest.mark.parametrize("num_rows", [2, 3, 16, 25, 49, 50])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_all_rows_gives_each_row_once_in_batches_of_equal_sizes(
    write_rows: WriteRows, num_rows: int, world_size: int
) -> None:
    path = write_rows("a.parquet", range(num_rows))
    ranks = [_loader(path, rank=rank, world_size=world_size) for rank in range(world_size)]

    found = [list(loader.all_rows()) for loader in ranks]

    sizes = [[batch.num_rows for batch, _, _ in batches] for batches in found]
    rows = [n for batches in found for batch, num_real, _ in batches for n in batch.dense_BF[:num_real, 0].tolist()]
    assert rows == list(range(num_rows))
    assert all(rank_sizes == sizes[0] for rank_sizes in sizes)
    assert sum(sizes[0]) == -(-num_rows // world_size)


def test_all_rows_hands_out_extra_columns_of_the_real_rows(tmp_path: Path) -> None:
    table = pa.table({"n": range(5), "item": list("abcab"), "clicked": [0, 1, 0, 1, 0], "city": list("vwxyz")})
    pq.write_table(table, tmp_path / "a.parquet")
    ranks = [_loader(tmp_path / "a.parquet", batch_size=2, rank=rank, world_size=2) for rank in range(2)]

    found = [
        [
            (num_real, None if extra is None else extra.to_pydict())
            for _, num_real, extra in loader.all_rows(extra_columns=["city", "n"])
        ]
        for loader in ranks
    ]

    assert found[0] == [(2, {"city": ["v", "w"], "n": [0, 1]}), (0, {"city": [], "n": []})]
    assert found[1] == [(2, {"city": ["x", "y"], "n": [2, 3]}), (1, {"city": ["z"], "n": [4]})]


def test_time_spent_waiting_is_counted(write_rows: WriteRows) -> None:
    loader = _loader(write_rows("a.parquet", range(50)))

    list(loader.epoch(loader.stream.start()))

    assert loader.wait_s > 0


def test_no_thread_is_left_when_the_consumer_stops_early(write_rows: WriteRows) -> None:
    loader = _loader(write_rows("a.parquet", range(200)))

    for _ in loader.epoch(loader.stream.start()):
        break
    for _ in loader.all_rows():
        break

    assert _num_threads() == 0


def test_row_that_cannot_be_encoded_is_named_with_its_file(write_rows: WriteRows) -> None:
    good, bad = write_rows("a.parquet", range(50)), write_rows("b.parquet", range(50, 100))
    encoder = _encoder(_stream(good))
    _bad_label_in(bad, row=17)
    loader = BatchLoader(_stream(good, bad), encoder, batch_size=16)

    with pytest.raises(DataError, match=r"b\.parquet, row 17 of the file: .*'clicked' holds 2 in row 17"):
        list(loader.epoch(loader.stream.start()))
    with pytest.raises(DataError, match=r"b\.parquet, row 17 of the file: .*clicked"):
        list(loader.all_rows())
    assert _num_threads() == 0


def test_history_whose_columns_are_not_aligned_is_named_with_its_file(tmp_path: Path) -> None:
    good = pa.table({"seen": [["a"]] * 30, "shops": [[1]] * 30})
    bad = good.set_column(1, "shops", pa.array([[1]] * 17 + [[1, 2]] + [[1]] * 12))
    columns = {"item": {"column": "seen"}, "shop": {"column": "shops"}}
    schema = FeatureSchema.model_validate({"features": {"history": {"kind": "sequence", "columns": columns}}})
    for name, table in (("a", good), ("b", bad)):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    stream = _stream(tmp_path / "a.parquet", tmp_path / "b.parquet")
    loader = BatchLoader(stream, FeatureEncoder.fit(schema, [good]), batch_size=16)

    with pytest.raises(DataError, match=r"b\.parquet, row 17 of the file: .* in row 17: 1 in 'seen', 2 in 'shops'"):
        list(loader.all_rows())


def test_error_that_is_not_about_data_is_noted_with_the_files(
    write_rows: WriteRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = _loader(write_rows("a.parquet", range(50)))

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(loader.encoder, "encode", broken)
    with pytest.raises(ZeroDivisionError) as caught:
        list(loader.epoch(loader.stream.start()))

    assert "a.parquet" in caught.value.__notes__[0]
    assert _num_threads() == 0


def test_rows_that_cannot_be_encoded_together_are_named_by_their_files(
    write_rows: WriteRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = _loader(write_rows("a.parquet", range(50)))
    encode = loader.encoder.encode

    def only_halves(table: pa.Table) -> Any:
        if table.num_rows == 8:
            raise DataError("eight are too many")
        return encode(table)

    monkeypatch.setattr(loader.encoder, "encode", only_halves)
    with pytest.raises(DataError, match=r"^[^ ]*a\.parquet: eight are too many$"):
        list(loader.epoch(loader.stream.start()))


def test_column_of_the_wrong_type_is_named_with_its_file(write_rows: WriteRows, tmp_path: Path) -> None:
    encoder = _encoder(_stream(write_rows("a.parquet", range(50))))
    pq.write_table(pa.table({"n": list("abc"), "item": list("abc"), "clicked": [0, 1, 0]}), tmp_path / "b.parquet")
    loader = BatchLoader(_stream(tmp_path / "b.parquet"), encoder, batch_size=2)

    with pytest.raises(SchemaError, match=r"b\.parquet: .*\bn\b.*string"):
        list(loader.epoch(loader.stream.start()))


def test_damaged_row_group_stops_the_loader_with_the_name_of_the_file(write_rows: WriteRows) -> None:
    path = write_rows("a.parquet", range(2000), rows_per_group=1000)
    loader = BatchLoader(_stream(path), _encoder(_stream(path)), batch_size=8)
    data = bytearray(path.read_bytes())
    data[200:2000] = b"\xff" * 1800
    path.write_bytes(data)

    with pytest.raises(DataError, match=r"a\.parquet: cannot read row group 0"):
        list(loader.epoch(loader.stream.start()))


def test_missing_column_is_an_error_before_anything_is_read(write_rows: WriteRows, tmp_path: Path) -> None:
    encoder = _encoder(_stream(write_rows("a.parquet", range(50))))
    pq.write_table(pa.table({"n": [1], "items": ["a"], "clicked": [0]}), tmp_path / "b.parquet")

    with pytest.raises(SchemaError, match=r"b\.parquet: column 'item' is missing; did you mean 'items'"):
        BatchLoader(_stream(tmp_path / "b.parquet"), encoder, batch_size=1)


def test_missing_extra_column_is_an_error(write_rows: WriteRows) -> None:
    loader = _loader(write_rows("a.parquet", range(50)))

    with pytest.raises(SchemaError, match=r"a\.parquet: column 'city' is missing"):
        next(loader.all_rows(extra_columns=["city"]))


def test_split_is_opened_from_the_config(write_rows: WriteRows, tmp_path: Path) -> None:
    path = str(write_rows("a.parquet", range(50)))
    config = DataConfig(train=path, test=[path, path], shuffle_rows=10)

    train = config.build("train", seed=3, cache_dir=tmp_path)
    test = config.build("test", seed=3, cache_dir=tmp_path)

    assert (train.seed, train.shuffle_rows, train.num_rows) == (3, 10, 50)
    assert (test.shuffle_rows, test.num_rows) == (None, 50)
    with pytest.raises(DataError, match=r"data\.validation names no files; give a file, a folder or a glob"):
        config.build("validation", seed=3, cache_dir=tmp_path)


def test_config_without_training_files_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        DataConfig(train=[])


def test_split_is_read_like_the_training_files(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("item;price\n7;1,5\n")
    (tmp_path / "test.csv").write_text("item;price\n7;1,500\n")
    data = DataConfig(train=(str(tmp_path / "train.csv"),), test=(str(tmp_path / "test.csv"),))
    alone = DataConfig(train=(str(tmp_path / "gone.csv"),), test=data.test)

    types = [
        one.build("test", seed=0, cache_dir=tmp_path / "cache").arrow_schema.field("price").type
        for one in (data, alone)
    ]

    assert types == [pa.float64(), pa.string()]
