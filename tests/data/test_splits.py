"""SplitWriter: row groups of one size, files that appear when complete."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.data.splits import ROW_GROUP_ROWS, SplitWriter


def test_small_chunks_become_full_row_groups(tmp_path: Path) -> None:
    chunk = pa.table({"x": pa.array(range(1000))})

    with SplitWriter(tmp_path, chunk.schema) as writer:
        for _ in range(40):
            writer.write("train", chunk)

    metadata = pq.read_metadata(tmp_path / "train.parquet")
    assert metadata.num_rows == writer.num_rows["train"] == 40_000
    assert [metadata.row_group(i).num_rows for i in range(2)] == [ROW_GROUP_ROWS, 40_000 - ROW_GROUP_ROWS]
    assert pq.read_metadata(tmp_path / "test.parquet").num_rows == 0


def test_error_leaves_nothing_behind_and_keeps_the_old_file(tmp_path: Path) -> None:
    table = pa.table({"x": [1]})
    pq.write_table(table, tmp_path / "train.parquet")

    with pytest.raises(ValueError, match="does not match schema"), SplitWriter(tmp_path, table.schema) as writer:
        writer.write("train", pa.table({"another": ["column"]}))

    assert [path.name for path in tmp_path.iterdir()] == ["train.parquet"]
    assert pq.read_table(tmp_path / "train.parquet").equals(table)
