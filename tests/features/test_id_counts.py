"""Tests of counting ids in bounded memory."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recmoe.errors import DataError
from recmoe.features.arrow_ids import id_values
from recmoe.features.id_counts import NUM_PARTITIONS, IdCounts


def _counts_of(counts: IdCounts, table: str = "x") -> dict[str, int]:
    """All counts; asserts that each id comes once."""
    rows = [row for part in counts.merged(table) for row in part.to_pylist()]
    found = {row["id"]: row["count"] for row in rows}
    assert len(found) == len(rows)
    return found


def _counted(*chunks: pa.Array) -> dict[str, int]:
    counts = IdCounts(["x"])
    for chunk in chunks:
        counts.add("x", id_values(chunk))
    return _counts_of(counts)


def test_missing_ids_do_not_count() -> None:
    assert _counted(pa.array(["b", "a", None, "b"]), pa.array(["b"])) == {"a": 1, "b": 3}


def test_chunks_without_an_id_count_nothing() -> None:
    nothing = pa.array([None, None], pa.string())

    assert _counted(nothing, nothing) == {}
    assert _counted(nothing, pa.array(["a"]), nothing) == {"a": 1}


def test_counts_of_chunks_of_several_types_add_up() -> None:
    chunks = (
        pa.array([7, 8, 8]),
        pa.array(["7", "7"]),
        pa.array([9.0, float("nan")]),
        pa.array(["9"]).dictionary_encode(),
    )

    assert _counted(*chunks) == {"7": 3, "8": 2, "9": 2}


def test_values_of_a_dictionary_that_do_not_occur_do_not_count() -> None:
    ids = pa.DictionaryArray.from_arrays(pa.array([1, 1, None]), pa.array(["a", "b", None]))

    assert _counted(ids) == {"b": 2}


def test_repeated_id_counts_as_often_as_it_is_said() -> None:
    counts = IdCounts(["x"])
    counts.add("x", id_values(pa.array(["a", "b", "b"])))
    counts.add_repeated("x", "a", 2)
    counts.add_repeated("x", "z", 0)

    assert _counts_of(counts) == {"a": 3, "b": 2}


def test_nothing_counted_is_nothing(tmp_path: Path) -> None:
    assert _counts_of(IdCounts(["x"])) == {}
    assert _counts_of(IdCounts(["x"], folder=tmp_path)) == {}


def test_counts_merged_on_the_way_equal_counts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.random.default_rng(0).integers(0, 50, 400)
    at_once = _counted(pa.array(ids))

    monkeypatch.setattr("recmoe.features.id_counts.MERGE_AT", 60)

    assert _counted(*(pa.array(part) for part in np.split(ids, 20))) == at_once


@pytest.mark.parametrize("max_bytes", [300, 5000])
def test_spilled_counts_equal_counts_in_memory(tmp_path: Path, max_bytes: int) -> None:
    """With 300 bytes the counts of one partition exceed the memory too."""
    random = np.random.default_rng(0)
    x, y = random.integers(0, 3000, 8000), random.integers(0, 5, 8000)
    in_memory, spilled = IdCounts(["x", "y"]), IdCounts(["x", "y"], folder=tmp_path, max_bytes=max_bytes)

    for counts in (in_memory, spilled):
        for rows in np.split(np.arange(8000), 16):
            counts.add("x", id_values(pa.array([f"id-{i}" for i in x[rows]])))
            counts.add("y", id_values(pa.array(y[rows])))

    assert len(spilled.files) > 3
    assert _counts_of(spilled, "x") == _counts_of(in_memory, "x")
    assert _counts_of(spilled, "y") == _counts_of(in_memory, "y")
    assert max(part.nbytes for part in spilled.merged("x")) < 3 * max_bytes


def test_ids_that_repeat_are_not_spilled(tmp_path: Path) -> None:
    counts = IdCounts(["x"], folder=tmp_path, max_bytes=5000)

    for _ in range(200):
        counts.add("x", id_values(pa.array([1, 2, 3])))

    assert not counts.files
    assert _counts_of(counts) == {"1": 200, "2": 200, "3": 200}


def test_counts_of_parts_add_up_wherever_they_were_counted(tmp_path: Path) -> None:
    whole = IdCounts(["x"], folder=tmp_path)
    whole.add("x", id_values(pa.array(["a", "b"])))

    for place in ("p", "q"):
        part = IdCounts(["x"], folder=tmp_path / place)
        part.add("x", id_values(pa.array(["b", "c"])))
        part.spill()
        whole.absorb(pickle.loads(pickle.dumps(part)))

    assert _counts_of(whole) == {"a": 1, "b": 3, "c": 2}
    assert whole.totals == {"x": 6}


@pytest.mark.parametrize("is_spilled", [False, True])
def test_partitions_share_out_the_ids(tmp_path: Path, is_spilled: bool) -> None:
    counts = IdCounts(["x"], folder=tmp_path)
    counts.add("x", id_values(pa.array(np.arange(1000))))
    if is_spilled:
        counts.spill()

    parts = [sum(table.num_rows for table in counts.merged("x", [part])) for part in range(NUM_PARTITIONS)]

    assert sum(parts) == 1000
    assert max(parts) < 40


def test_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    counts = IdCounts(["x"], folder=tmp_path / "file")
    counts.add("x", id_values(pa.array([1])))

    with pytest.raises(DataError, match=r"/file: cannot write ids that exceed the memory allowed \(.*; free some"):
        counts.spill()
