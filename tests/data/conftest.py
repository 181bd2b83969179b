"""Files of rows numbered 0, 1, 2, …, to see which of them a stream reads."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

WriteRows = Callable[..., Path]


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """Writes ``rows.start … rows.stop`` to a Parquet or CSV file: columns n (the row's number), item, clicked."""

    def write(name: str, rows: range, *, rows_per_group: int = 10) -> Path:
        path = tmp_path / name
        table = pa.table(
            {"n": list(rows), "item": [f"item {n % 7}" for n in rows], "clicked": [n % 2 for n in rows]},
        )
        if name.endswith(".csv"):
            lines = [f"{row['n']},{row['item']},{row['clicked']}" for row in table.to_pylist()]
            path.write_text("\n".join(["n,item,clicked", *lines]) + "\n")
        else:
            pq.write_table(table, path, row_group_size=rows_per_group, compression="snappy")
        return path

    return write
