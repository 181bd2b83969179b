"""Frames of several libraries become the same table; what cannot become one is named."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.errors import DataError, RequestError, TrainingError
from recmoe.face.frames import as_files, as_table, in_python_words


class OtherFrame:
    """A frame of a library that speaks the Arrow PyCapsule interface."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


def test_pandas_arrow_and_other_frames_are_one_table() -> None:
    table = pa.table({"user": [1, 2], "name": ["a", None]})

    others = [as_table(frame) for frame in (table, OtherFrame(table), table.to_pandas())]

    assert all(other.to_pydict() == table.to_pydict() for other in others)


def test_index_that_says_something_is_a_column() -> None:
    frame = pd.DataFrame({"click": [0, 1]}, index=pd.Index([7, 9], name="user_id"))

    table = as_table(frame)

    assert table.to_pydict() == {"click": [0, 1], "user_id": [7, 9]}


def test_paths_stay_and_frames_are_written(tmp_path: Path) -> None:
    place = tmp_path / "new" / "rows.parquet"

    written = as_files(pd.DataFrame({"a": [1]}), place)

    assert as_files("logs/*.csv", place) == ["logs/*.csv"]
    assert as_files([Path("a.csv"), "b.csv"], place) == ["a.csv", "b.csv"]
    assert written == [str(place)]
    assert pq.read_table(place).to_pydict() == {"a": [1]}


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"a": [1, "x"]}), "rows: the frame cannot become a table:.*column a.*one name and type"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "rows: the frame cannot become a table: Duplicate column"),
        (pa.table([[1], [2]], names=["a", "a"]), "rows: two columns are called a; rename one"),
        (7, "rows: expected a pandas DataFrame, an Arrow table or paths of files, got int"),
        ([], "rows: expected a pandas DataFrame, an Arrow table or paths of files, got list"),
    ],
)
def test_what_is_no_table_is_named(tmp_path: Path, frame: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_files(frame, tmp_path / "rows.parquet", what="rows")


def test_errors_name_arguments_of_python() -> None:
    with pytest.raises(TrainingError, match=r"^go on with resume=True or choose another run_dir$"), in_python_words():
        raise TrainingError("go on with --resume or choose another --run-dir")
    with pytest.raises(RequestError) as told, in_python_words():
        raise RequestError("user.age", "expected a number")
    assert told.value.field == "user.age"
