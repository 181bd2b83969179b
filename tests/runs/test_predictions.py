from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.errors import DataError, RequestError, SchemaError
from recmoe.export.bundle import ModelBundle
from recmoe.ranking.ranker import Ranker
from recmoe.runs.predictions import write_predictions


@pytest.fixture(scope="module")
def ranker(bundle: ModelBundle) -> Ranker:
    return Ranker(bundle)


@pytest.fixture
def log(shop_log: pa.Table, tmp_path: Path) -> str:
    path = tmp_path / "log.parquet"
    pq.write_table(shop_log, path)
    return str(path)


def test_rows_keep_their_order_and_their_scores(ranker: Ranker, shop_log: pa.Table, log: str, tmp_path: Path) -> None:
    num_rows = write_predictions(ranker, [log], tmp_path / "made" / "p.parquet")

    written = pq.read_table(tmp_path / "made" / "p.parquet")
    assert num_rows == written.num_rows == shop_log.num_rows
    assert written.column_names == ["visit", "item_id", "ctr", "cvr", "ctcvr", "score"]
    assert written["item_id"].to_pylist() == shop_log["item_id"].to_pylist()
    np.testing.assert_allclose(written["ctr"].to_numpy(), ranker.score(shop_log)[:, 0], atol=1e-6)


def test_kept_columns_replace_the_usual_ones(ranker: Ranker, log: str, tmp_path: Path) -> None:
    write_predictions(ranker, [log], tmp_path / "p.parquet", keep=["click", "price"], score="profit")

    written = pq.read_table(tmp_path / "p.parquet")
    assert written.column_names == ["click", "price", "ctr", "cvr", "ctcvr", "score"]
    expected = written["ctcvr"].to_numpy().astype(float) * 12 - 0.1 * written["ctr"].to_numpy()
    np.testing.assert_allclose(written["score"].to_numpy(), expected, rtol=1e-5)


def test_label_is_kept_beside_the_task_of_its_name_and_a_task_may_be_called_score(
    score_bundle_path: Path, shop_log: pa.Table, log: str, tmp_path: Path
) -> None:
    ranker = Ranker.load(score_bundle_path)

    write_predictions(ranker, [log], tmp_path / "p.parquet", keep=["click", "purchase"])

    written = pq.read_table(tmp_path / "p.parquet")
    assert written.column_names == ["log_click", "purchase", "click", "score", "ranking_score"]
    assert written["log_click"].to_pylist() == shop_log["click"].to_pylist()
    predictions_NT = ranker.score(shop_log)
    np.testing.assert_allclose(written["score"].to_numpy(), predictions_NT[:, 1], atol=1e-6)
    np.testing.assert_allclose(written["ranking_score"].to_numpy(), predictions_NT.prod(axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "keep", "score", "error", "message"),
    [
        ("p.csv", [], None, DataError, r"written as Parquet; name the file .*p\.parquet"),
        ("p.parquet", ["pric"], None, SchemaError, "pric"),
        ("p.parquet", [], "gain", RequestError, "gain"),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(
    ranker: Ranker,
    log: str,
    tmp_path: Path,
    name: str,
    keep: list[str],
    score: str | None,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        write_predictions(ranker, [log], tmp_path / name, keep=keep, score=score)

    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


def test_column_that_files_store_differently_matters_only_where_it_is_read(
    ranker: Ranker, shop_log: pa.Table, log: str, tmp_path: Path
) -> None:
    other = tmp_path / "other.parquet"
    texts = pa.array(["x"] * shop_log.num_rows)
    unread, read = (shop_log.column_names.index(name) for name in ("click", "price"))
    pq.write_table(shop_log.set_column(unread, "click", texts), other)

    num_rows = write_predictions(ranker, [log, str(other)], tmp_path / "p.parquet")

    assert num_rows == 2 * shop_log.num_rows
    pq.write_table(shop_log.set_column(read, "price", texts), other)
    with pytest.raises(SchemaError, match=r"other\.parquet: column 'price' is string, expected double as in .*log"):
        write_predictions(ranker, [log, str(other)], tmp_path / "p.parquet")
