import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.data.files import find_files
from recmoe.errors import BundleError, DataError
from recmoe.ranking.ranker import Ranker
from recmoe.runs.prediction_parts import PLAN, SUCCESS, Part, write_prediction_parts
from recmoe.runs.predictions import write_predictions

ROWS_PER_PART = 60
"""Of 200 rows: three whole parts and a short one."""


@pytest.fixture
def log(shop_log: pa.Table, tmp_path: Path) -> Path:
    """Two files with rows of several parts in each."""
    folder = tmp_path / "log"
    folder.mkdir()
    pq.write_table(shop_log.slice(0, 90), folder / "a.parquet", row_group_size=40)
    pq.write_table(shop_log.slice(90), folder / "b.parquet")
    return folder


@pytest.fixture
def write(bundle_path: Path, log: Path, tmp_path: Path) -> Callable[..., Any]:
    def call(**changes: Any) -> Any:
        return write_prediction_parts(
            changes.pop("bundle", bundle_path),
            [str(changes.pop("log", log))],
            changes.pop("target", tmp_path / "made" / "scores"),
            **{"rows_per_part": ROWS_PER_PART, "is_quiet": True, **changes},
        )

    return call


class BrokenError(Exception):
    """What ends a start before its time."""


def after(num_parts: int) -> Callable[..., Iterator[int]]:
    """Parts are made until so many are done."""

    def map_some(make: Callable[[Part], int], parts: Sequence[Part]) -> Iterator[int]:
        for part in parts[:num_parts]:
            yield make(part)
        raise BrokenError

    return map_some


def test_parts_together_are_the_file_of_one_start(
    write: Callable[..., Any], bundle_path: Path, log: Path, tmp_path: Path
) -> None:
    written = write()

    folder = tmp_path / "made" / "scores"
    parts = find_files([str(folder)])
    assert [pq.read_metadata(part).num_rows for part in parts] == [60, 60, 60, 20]
    assert sorted(path.name for path in folder.iterdir()) == [SUCCESS, PLAN, *(part.name for part in parts)]
    assert (written.num_rows, written.num_parts, written.num_found) == (200, 4, 0)
    write_predictions(Ranker.load(bundle_path), [str(log)], tmp_path / "one.parquet")
    one = pq.read_table(tmp_path / "one.parquet")
    together = pq.read_table(list(parts))
    assert together.select(["visit", "item_id"]) == one.select(["visit", "item_id"])
    for name in ("ctr", "cvr", "ctcvr", "score"):
        assert together[name].to_pylist() == pytest.approx(one[name].to_pylist(), rel=1e-6)


def test_second_start_makes_what_is_missing(write: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(BrokenError):
        write(map_parts=after(2))
    folder = tmp_path / "made" / "scores"
    assert not (folder / SUCCESS).exists()
    first, second = folder / "part-00000.parquet", folder / "part-00001.parquet"
    made_ns = first.stat().st_mtime_ns
    # The disk was full while it was copied.
    second.write_bytes(second.read_bytes()[:500])

    written = write()

    assert (written.num_parts, written.num_found) == (4, 1)
    assert first.stat().st_mtime_ns == made_ns
    assert [pq.read_metadata(part).num_rows for part in find_files([str(folder)])] == [60, 60, 60, 20]
    assert (folder / SUCCESS).exists()
    assert write().num_found == 4


def test_start_that_breaks_leaves_no_part_unfinished(write: Callable[..., Any], log: Path, tmp_path: Path) -> None:
    damaged = (log / "b.parquet").read_bytes()
    # Pages of the second file are overwritten, its footer is whole.
    (log / "b.parquet").write_bytes(damaged[:4] + bytes(2000) + damaged[2004:])

    with pytest.raises(DataError, match=r"b\.parquet"):
        write()

    folder = tmp_path / "made" / "scores"
    assert sorted(path.name for path in folder.iterdir()) == [PLAN, "part-00000.parquet"]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"keep": ["price"]}, "columns"),
        ({"score": "ctr", "rows_per_part": 50}, "score, rows per part"),
    ],
)
def test_folder_of_other_predictions_is_left_alone(
    write: Callable[..., Any], tmp_path: Path, changes: dict[str, Any], names: str
) -> None:
    write()
    before = {path.name: path.read_bytes() for path in (tmp_path / "made" / "scores").iterdir()}

    with pytest.raises(DataError, match=rf"scores holds predictions that differ in {names}; name another folder"):
        write(**changes)

    assert {path.name: path.read_bytes() for path in (tmp_path / "made" / "scores").iterdir()} == before


def test_other_log_and_other_model_are_other_predictions(
    write: Callable[..., Any], log: Path, score_bundle_path: Path
) -> None:
    write()

    with pytest.raises(DataError, match="differ in log; name another folder"):
        write(log=log / "a.parquet")
    with pytest.raises(DataError, match="differ in model, columns, score; name another folder"):
        write(bundle=score_bundle_path)


def test_model_that_changes_meanwhile_ends_it(
    write: Callable[..., Any], make_bundle: Callable[..., Path], score_bundle_path: Path, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundle")

    def map_elsewhere(make: Callable[[Part], int], parts: Sequence[Part]) -> Iterator[int]:
        from recmoe.runs import prediction_parts

        shutil.rmtree(bundle)
        shutil.copytree(score_bundle_path, bundle)
        # As in a process that has made no part yet.
        prediction_parts._ranker.cache_clear()
        return map(make, parts)

    with pytest.raises(BundleError, match=r"bundle has changed since the predictions were begun; start them anew"):
        write(bundle=bundle, map_parts=map_elsewhere)


def test_taken_place_is_refused(write: Callable[..., Any], log: Path, tmp_path: Path) -> None:
    before = sorted(log.iterdir())

    with pytest.raises(DataError, match=r"log is there and holds no predictions; name another folder"):
        write(target=log)
    with pytest.raises(DataError, match=r"name the file .*scores\.parquet, or a folder for parts"):
        write(target=tmp_path / "scores.csv")
    assert sorted(log.iterdir()) == before


def test_damaged_plan_is_told(write: Callable[..., Any], tmp_path: Path) -> None:
    write()
    plan = tmp_path / "made" / "scores" / PLAN
    assert set(json.loads(plan.read_text())) == {"model", "log", "columns", "score", "rows_per_part"}
    plan.write_text("{")

    with pytest.raises(DataError, match=rf"{PLAN} is damaged: .*; remove .*scores, or name another folder"):
        write()


def test_csv_is_read_and_its_copy_removed(write: Callable[..., Any], shop_log: pa.Table, tmp_path: Path) -> None:
    names = ["visit", "user_id", "age", "hour", "item_id", "price"]
    lists = {name: [None] * 200 for name in ("tags", "words")}
    rows = shop_log.select(names).to_pandas().assign(**lists)
    rows.to_json(tmp_path / "log.jsonl", orient="records", lines=True)

    written = write(log=tmp_path / "log.jsonl")

    assert written.num_rows == 200
    assert not (tmp_path / "made" / "scores" / "_csv").exists()
