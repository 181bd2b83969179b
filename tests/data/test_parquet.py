"""Tests of ParquetStream."""

import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.data.csv_config import CsvConfig
from recmoe.data.order import Cursor
from recmoe.data.parquet import ParquetStream
from recmoe.errors import DataError, SchemaError

WriteRows = Callable[..., Path]


def _stream(*paths: Path, shuffle_rows: int | None = 25, seed: int = 0, **options: Any) -> ParquetStream:
    cache_dir = paths[0].parent / "cache"
    return ParquetStream(
        [str(path) for path in paths], seed=seed, shuffle_rows=shuffle_rows, cache_dir=cache_dir, **options
    )


def _batches(
    stream: ParquetStream, cursor: Cursor, *, world_size: int, batch_size: int, num_steps: int | None = None
) -> list[list[list[int]]]:
    """Numbers of the rows in each batch of each rank, cut off after some steps."""
    return [
        [
            batch["n"].to_pylist()
            for batch in stream.batches(cursor, rank=rank, world_size=world_size, batch_size=batch_size)
        ][:num_steps]
        for rank in range(world_size)
    ]


def _flat(ranks: list[list[list[int]]]) -> list[int]:
    return [n for batches in ranks for batch in batches for n in batch]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("shuffle_rows", [None, 25, 1000])
def test_epoch_gives_each_row_at_most_once_and_all_but_less_than_a_step(
    write_rows: WriteRows, world_size: int, shuffle_rows: int | None
) -> None:
    stream = _stream(write_rows("a.parquet", range(64)), write_rows("b.csv", range(64, 107)), shuffle_rows=shuffle_rows)

    ranks = _batches(stream, stream.start(), world_size=world_size, batch_size=4)

    num_steps = stream.num_steps(stream.start(), world_size=world_size, batch_size=4)
    rows = _flat(ranks)
    assert num_steps == 107 // (4 * world_size)
    assert all([len(batch) for batch in batches] == [4] * num_steps for batches in ranks)
    assert len(rows) == len(set(rows)) == num_steps * 4 * world_size
    assert set(rows) <= set(range(107))


def test_epoch_is_exactly_once_when_the_steps_divide_the_rows(write_rows: WriteRows) -> None:
    stream = _stream(write_rows("a.parquet", range(96)))

    ranks = _batches(stream, stream.start(), world_size=3, batch_size=4)

    assert sorted(_flat(ranks)) == list(range(96))


def test_order_changes_with_seed_and_epoch_and_with_nothing_else(write_rows: WriteRows) -> None:
    path = write_rows("a.parquet", range(100))

    first, again, seed, epoch = (
        _flat(_batches(_stream(path, seed=seed), Cursor(epoch, ((0, 100),)), world_size=1, batch_size=10))
        for seed, epoch in ((0, 0), (0, 0), (1, 0), (0, 1))
    )

    assert first == again
    assert first != list(range(100))
    assert first not in (seed, epoch)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("shuffle_rows", [None, 25, 1000])
def test_resumed_epoch_equals_the_unbroken_one(
    write_rows: WriteRows, world_size: int, shuffle_rows: int | None
) -> None:
    stream = _stream(write_rows("a.parquet", range(107)), shuffle_rows=shuffle_rows)
    unbroken = _batches(stream, stream.start(2), world_size=world_size, batch_size=4)

    cursor = stream.advance(stream.start(2), num_steps=3, world_size=world_size, batch_size=4)
    reopened = _stream(*stream.files, shuffle_rows=shuffle_rows)
    resumed = _batches(reopened, cursor, world_size=world_size, batch_size=4)

    assert resumed == [batches[3:] for batches in unbroken]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (2, 1), (3, 2), (2, 5)])
def test_epoch_goes_on_with_another_number_of_ranks(write_rows: WriteRows, before: int, after: int) -> None:
    stream = _stream(write_rows("a.parquet", range(200)))
    start = stream.start()

    done = _flat(_batches(stream, start, world_size=before, batch_size=4, num_steps=5))
    cursor = stream.advance(start, num_steps=5, world_size=before, batch_size=4)
    rest = _flat(_batches(stream, cursor, world_size=after, batch_size=4))

    assert len(done) == 5 * 4 * before
    assert len(set(done + rest)) == len(done + rest)
    assert 200 - len(done + rest) < after * 4


def test_epoch_goes_on_through_several_changes_of_the_world(write_rows: WriteRows) -> None:
    stream = _stream(write_rows("a.parquet", range(200)))
    cursor = stream.start()
    rows: list[int] = []

    for world_size, num_steps in ((3, 4), (2, 5), (4, 3), (1, 16)):
        rows += _flat(_batches(stream, cursor, world_size=world_size, batch_size=4, num_steps=num_steps))
        cursor = stream.advance(cursor, num_steps=num_steps, world_size=world_size, batch_size=4)

    assert sorted(rows) == list(range(200))
    assert cursor.remaining == ()


def test_order_does_not_depend_on_the_columns_that_are_read(write_rows: WriteRows) -> None:
    path = write_rows("a.parquet", range(50))
    everything, some = _stream(path), _stream(path, columns=["clicked", "n"])

    tables = [
        next(stream.batches(stream.start(), rank=0, world_size=1, batch_size=50)) for stream in (everything, some)
    ]

    assert everything.arrow_schema.names == ["n", "item", "clicked"]
    assert some.arrow_schema.names == ["clicked", "n"]
    assert tables[1].equals(tables[0].select(["clicked", "n"]))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_chunks_give_every_row_once_in_the_order_of_the_files(write_rows: WriteRows, world_size: int) -> None:
    stream = _stream(write_rows("a.parquet", range(64)), write_rows("b.csv", range(64, 107)))

    ranks = [
        [chunk["n"].to_pylist() for chunk in stream.chunks(rank=rank, world_size=world_size, batch_size=8)]
        for rank in range(world_size)
    ]

    assert _flat(ranks) == list(range(107))
    assert all(len(chunk) == 8 for chunks in ranks for chunk in chunks[:-1])


def test_chunks_of_more_ranks_than_rows(write_rows: WriteRows) -> None:
    stream = _stream(write_rows("a.parquet", range(2)))

    ranks = [
        [chunk["n"].to_pylist() for chunk in stream.chunks(rank=rank, world_size=3, batch_size=8)] for rank in range(3)
    ]

    assert ranks == [[], [[0]], [[1]]]


def test_identity_follows_the_data_and_not_its_place(write_rows: WriteRows, tmp_path: Path) -> None:
    path = write_rows("a.parquet", range(64))
    moved = tmp_path / "elsewhere" / "a.parquet"
    moved.parent.mkdir()
    moved.write_bytes(path.read_bytes())

    first, same, other = (_stream(file).identity for file in (path, moved, write_rows("a.csv", range(64))))

    assert first == same
    assert first != other


def test_dictionaries_and_large_types_pass_through_and_join_across_files(tmp_path: Path) -> None:
    small = pa.dictionary(pa.int8(), pa.string())
    for part in range(2):
        names = pa.array([f"item {part} {n}" for n in range(100)])
        table = pa.table(
            {"item": names.cast(small), "text": names.cast(pa.large_string()), "tags": [[part, n] for n in range(100)]}
        )
        pq.write_table(table, tmp_path / f"{part}.parquet", row_group_size=30)
    stream = _stream(tmp_path / "0.parquet", tmp_path / "1.parquet")

    table = pa.concat_tables(stream.chunks(batch_size=37))

    assert table.schema.types == [pa.dictionary(pa.int32(), pa.string()), pa.large_string(), pa.list_(pa.int64())]
    assert (
        table["item"].to_pylist() == table["text"].to_pylist() == [f"item {p} {n}" for p in (0, 1) for n in range(100)]
    )
    assert table["tags"].to_pylist() == [[p, n] for p in (0, 1) for n in range(100)]


def test_shuffled_dictionaries_keep_their_values(tmp_path: Path) -> None:
    names = [f"item {n}" for n in range(100)]
    pq.write_table(
        pa.table({"item": pa.array(names).dictionary_encode(), "n": range(100)}),
        tmp_path / "a.parquet",
        row_group_size=30,
    )
    stream = _stream(tmp_path / "a.parquet")

    rows = [
        row
        for batch in stream.batches(stream.start(), rank=0, world_size=1, batch_size=50)
        for row in batch.to_pylist()
    ]

    assert all(row["item"] == f"item {row['n']}" for row in rows)


def test_column_that_files_store_differently_gets_the_type_that_holds_both(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"a": pa.array([None, None], pa.null()), "b": pa.array([1], pa.int32()).take([0, 0])}),
        tmp_path / "0.parquet",
    )
    pq.write_table(pa.table({"b": pa.array([2**40], pa.int64()), "a": ["x"]}), tmp_path / "1.parquet")
    stream = _stream(tmp_path / "0.parquet", tmp_path / "1.parquet")

    table = pa.concat_tables(stream.chunks(batch_size=10))

    assert table.to_pydict() == {"a": [None, None, "x"], "b": [1, 1, 2**40]}


def test_stream_of_one_window_reads_it_once(write_rows: WriteRows) -> None:
    path = write_rows("a.parquet", range(100))
    stream = _stream(path, shuffle_rows=1000)
    first = _flat(_batches(stream, stream.start(0), world_size=1, batch_size=10))

    path.unlink()
    second = _flat(_batches(stream, stream.start(1), world_size=1, batch_size=10))

    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second


def test_at_most_two_windows_are_in_memory(write_rows: WriteRows, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows("a.parquet", range(1000), rows_per_group=100)
    stream = _stream(path, shuffle_rows=150)
    read = stream._window
    windows: list[weakref.ref[Any]] = []
    num_alive: list[int] = []

    def counted(*arguments: Any) -> pa.Table:
        table = read(*arguments)
        windows.append(weakref.ref(table))
        return table

    monkeypatch.setattr(stream, "_window", counted)
    for _ in stream.batches(stream.start(), rank=0, world_size=1, batch_size=60):
        time.sleep(0.005)
        num_alive.append(sum(window() is not None for window in windows))

    assert len(windows) == 5
    assert max(num_alive) == 2


def test_thread_that_reads_ahead_stops_with_the_consumer(write_rows: WriteRows) -> None:
    stream = _stream(write_rows("a.parquet", range(100)))
    blocks = stream.blocks(stream.start(), rank=0, world_size=1, batch_size=10)
    next(blocks)

    blocks.close()

    assert not any(thread.name.startswith("read-ahead") for thread in threading.enumerate())


def test_block_knows_file_and_row_of_each_row(write_rows: WriteRows) -> None:
    stream = _stream(write_rows("a.parquet", range(64)), write_rows("b.parquet", range(64, 107)))
    first_row = [0, 64]

    for block in stream.blocks(stream.start(), rank=1, world_size=2, batch_size=7):
        origins = [block.origin(row) for row in range(7)]

        assert [first_row[file] + row for file, row in origins] == block.table["n"].to_pylist()


def test_empty_split_is_an_error(write_rows: WriteRows, tmp_path: Path) -> None:
    empty = write_rows("a.parquet", range(0))

    with pytest.raises(DataError, match="the split is empty: no files are given"):
        ParquetStream([], seed=0, shuffle_rows=None, cache_dir=tmp_path)
    with pytest.raises(DataError, match=r"the split is empty: no rows in .*a\.parquet \(1 files, 0 of them unreadable"):
        _stream(empty)


def test_fewer_rows_than_one_step_is_an_error_only_at_the_start(write_rows: WriteRows) -> None:
    stream = _stream(write_rows("a.parquet", range(10)))
    rest = stream.advance(stream.start(), num_steps=1, world_size=2, batch_size=4)

    with pytest.raises(
        DataError, match=r"the split has 10 rows, fewer than one step of 4 x 3; lower training\.batch_size"
    ):
        stream.batches(stream.start(), rank=0, world_size=4, batch_size=3)
    assert stream.num_steps(rest, world_size=2, batch_size=4) == 0
    assert list(stream.batches(rest, rank=0, world_size=2, batch_size=4)) == []


def test_missing_column_names_file_column_and_what_was_found(write_rows: WriteRows) -> None:
    path = write_rows("a.parquet", range(10))

    with pytest.raises(
        SchemaError,
        match=r"a\.parquet: column 'click' is missing; did you mean 'clicked'\? columns found: n, item, clicked",
    ):
        _stream(path, columns=["n", "click"])


def test_column_missing_in_a_later_file_names_that_file(write_rows: WriteRows, tmp_path: Path) -> None:
    path = write_rows("a.parquet", range(10))
    pq.write_table(pa.table({"n": [1], "item": ["x"]}), tmp_path / "b.parquet")

    stream = _stream(path, tmp_path / "b.parquet")
    assert stream.arrow_schema.names == ["n", "item"]
    with pytest.raises(SchemaError, match=r"b\.parquet: column 'clicked' is missing; columns found: n, item"):
        stream.require(["clicked"])
    with pytest.raises(SchemaError, match=r"b\.parquet: column 'clicked' is missing; columns found: n, item"):
        _stream(path, tmp_path / "b.parquet", columns=["clicked"])
    assert _stream(path, tmp_path / "b.parquet", columns=["item"]).num_rows == 11


def test_column_of_another_type_names_both_files_once_it_is_read(write_rows: WriteRows, tmp_path: Path) -> None:
    path = write_rows("a.parquet", range(10))
    (tmp_path / "b.csv").write_text("n,item,clicked\none,x,0\n")

    stream = _stream(path, tmp_path / "b.csv")

    assert stream.arrow_schema.names == ["item", "clicked"]
    assert [chunk.num_rows for chunk in stream.chunks(batch_size=20)] == [11]
    with pytest.raises(SchemaError, match=r"b\.csv: column 'n' is string, expected int64 as in .*a\.parquet"):
        stream.require(["n"])


def test_column_that_is_there_twice_is_an_error_once_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n,m,n\n1,2,3\n")

    stream = _stream(tmp_path / "a.csv")

    assert next(stream.chunks(batch_size=9)).to_pydict() == {"m": [2]}
    with pytest.raises(SchemaError, match=r"a\.csv: column 'n' is there 2 times; rename one"):
        stream.require(["n"])


def _chunk(stream: ParquetStream) -> pa.Table:
    return pa.concat_tables(stream.chunks(batch_size=100)).combine_chunks()


def test_integers_beside_floats_keep_their_values(tmp_path: Path) -> None:
    large = 2**60 + 1
    pq.write_table(pa.table({"a": [7], "b": [large], "c": [[1]], "d": [True]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": [7.5], "b": [8.0], "c": [[0.5]], "d": [0]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": [None], "b": [float("nan")], "c": [None], "d": [1]}), tmp_path / "2.parquet")
    stream = _stream(*(tmp_path / f"{number}.parquet" for number in range(3)))

    table = _chunk(stream)

    assert table.schema.types == [pa.float64(), pa.int64(), pa.list_(pa.float64()), pa.int64()]
    assert table.to_pydict() == {
        "a": [7.0, 7.5, None],
        "b": [large, 8, None],
        "c": [[1.0], [0.5], None],
        "d": [1, 0, 1],
    }


@pytest.mark.parametrize("values", [pa.array([0.5]), pa.array([2**63], pa.uint64())], ids=["fraction", "uint64"])
def test_value_that_the_common_type_cannot_hold_names_file_and_column(tmp_path: Path, values: pa.Array) -> None:
    pq.write_table(pa.table({"a": [2**60 + 1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"a": values}), tmp_path / "1.parquet")
    stream = _stream(tmp_path / "0.parquet", tmp_path / "1.parquet", on_error="skip")

    with pytest.raises(
        DataError, match=r"1\.parquet: column 'a' is (double|uint64), which cannot be read as int64 like that of the"
    ):
        _chunk(stream)


def test_column_of_csv_is_text_where_another_file_has_text(tmp_path: Path) -> None:
    (tmp_path / "0.csv").write_text("item,price\n7,1\n8,NA\n")
    (tmp_path / "1.csv").write_text("item,price\n007,2.5\nx,NA\n")
    (tmp_path / "2.csv").write_text("item,price\n9,NA\n")
    stream = _stream(*(tmp_path / f"{number}.csv" for number in range(3)))

    table = _chunk(stream)

    assert table.to_pydict() == {"item": ["7", "8", "007", "x", "9"], "price": [1.0, None, 2.5, None, None]}


def test_all_csv_files_are_read_like_the_first(tmp_path: Path) -> None:
    (tmp_path / "0.csv").write_text("item;price\n7;1,5\n8;12,25\n")
    (tmp_path / "1.csv").write_text("item\tprice\n9\t2,500\n")

    assert _chunk(_stream(tmp_path / "0.csv", tmp_path / "1.csv"))["price"].to_pylist() == [1.5, 12.25, 2.5]
    told = CsvConfig(decimal=".", thousands=",")
    assert _chunk(_stream(tmp_path / "1.csv", csv=told))["price"].to_pylist() == [2500]


def test_csv_read_in_another_way_is_another_revision(tmp_path: Path) -> None:
    (tmp_path / "0.csv").write_text("item,price\n7,void\n")

    revisions = [_stream(tmp_path / "0.csv", csv=CsvConfig(null_values=nulls)).revision for nulls in (None, ("void",))]

    assert revisions[0] != revisions[1]


def test_folders_give_columns_unless_the_file_has_them(tmp_path: Path) -> None:
    for folder in ("country=CH/hour=05", "country=a%2Fb/hour=23", "country=__HIVE_DEFAULT_PARTITION__/hour=07"):
        (tmp_path / folder).mkdir(parents=True)
        pq.write_table(pa.table({"n": [1, 2]}), tmp_path / folder / "part.parquet")
    pq.write_table(pa.table({"n": [3], "country": ["IT"]}), tmp_path / "country=CH/hour=05" / "part.parquet")
    stream = _stream(tmp_path)

    table = _chunk(stream)

    assert table.to_pydict() == {
        "n": [3, 1, 2, 1, 2],
        "country": ["IT", None, None, "a/b", "a/b"],
        "hour": ["05", "07", "07", "23", "23"],
    }
    (block,) = stream.blocks(stream.start(), rank=0, world_size=1, batch_size=5, columns=["hour"])
    assert sorted(block.table["hour"].to_pylist()) == ["05", "07", "07", "23", "23"]


def test_columns_of_folders_have_types(tmp_path: Path) -> None:
    for folder in ("k=1/day=2026-01-31", "k=12/day=2026-02-01"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "part.csv").write_text("n\n7\n")

    table = _chunk(_stream(tmp_path))

    assert table.schema.types == [pa.int64(), pa.int64(), pa.date32()]
    assert table["k"].to_pylist() == [1, 12]


def test_number_that_begins_late_is_a_number(tmp_path: Path) -> None:
    values = pa.array([None] * 20 + [1.5], pa.float64())
    pq.write_table(pa.table({"a": values}), tmp_path / "0.parquet", row_group_size=10)

    assert _chunk(_stream(tmp_path / "0.parquet"))["a"].to_pylist() == values.to_pylist()


def test_short_floats_are_shuffled_like_others(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array(np.arange(8, dtype=np.float16))}), tmp_path / "0.parquet", row_group_size=4)
    stream = _stream(tmp_path / "0.parquet", shuffle_rows=8)

    batch = next(stream.batches(stream.start(), rank=0, world_size=1, batch_size=8))

    assert sorted(batch["a"].to_pylist()) == list(range(8))


def test_cut_file_is_an_error_or_is_skipped_and_counted(write_rows: WriteRows) -> None:
    whole, cut = write_rows("a.parquet", range(10)), write_rows("b.parquet", range(10, 20))
    cut.write_bytes(cut.read_bytes()[:-20])

    with pytest.raises(DataError, match=r"b\.parquet: not a readable Parquet file \(.*\); .*data\.on_error"):
        _stream(whole, cut)
    stream = _stream(whole, cut, on_error="skip")
    assert (stream.num_rows, stream.num_skipped_files, stream.files) == (10, 1, (whole,))


def test_damaged_row_group_is_an_error_or_is_skipped_and_counted(write_rows: WriteRows) -> None:
    path = write_rows("a.parquet", range(4000), rows_per_group=1000)
    data = bytearray(path.read_bytes())
    data[200:2000] = b"\xff" * 1800
    path.write_bytes(data)

    with pytest.raises(DataError, match=r"a\.parquet: cannot read row group 0 \(.*\); .*data\.on_error"):
        list(_stream(path, shuffle_rows=None).chunks(batch_size=1000))
    stream = _stream(path, on_error="skip")
    rows = _flat(_batches(stream, stream.start(), world_size=1, batch_size=1000))
    assert (stream.num_rows, stream.num_skipped_rows, stream.num_skipped_files) == (3000, 1000, 0)
    assert sorted(rows) == list(range(1000, 4000))
    assert [chunk["n"][0].as_py() for chunk in stream.chunks(batch_size=1000)] == [1000, 2000, 3000]


def test_damaged_csv_is_skipped_and_counted(write_rows: WriteRows, tmp_path: Path) -> None:
    whole = write_rows("a.csv", range(10))
    whole.write_text(whole.read_text() + "10,item 3\n")
    (tmp_path / "b.csv").write_text("")

    stream = _stream(whole, tmp_path / "b.csv", on_error="skip")

    assert (stream.num_rows, stream.num_skipped_rows, stream.num_skipped_files) == (10, 1, 1)


def test_nothing_but_damaged_files_is_an_empty_split(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")

    with pytest.raises(DataError, match=r"the split is empty: .*\(1 files, 1 of them unreadable, 0 rows skipped\)"):
        _stream(tmp_path / "a.parquet", on_error="skip")
