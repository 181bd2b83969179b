"""Logs as they are found trains as they are: how they are written does not decide what is learnt."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.export.bundle import ModelBundle

Command = Callable[..., Any]

CSV_CONFIG = """
name: odd
data:
  train: ["${here}/train.csv"]
  validation: ["${here}/validation.csv"]
  csv: {columns: [request, user, item, country, "\\U0001F642 price", "a\\nb", "点击"]}
inputs:
  group: request
  item: item
  features:
    user: {kind: id, side: user}
    item: {kind: id}
    country: {kind: id, side: context}
    price: {kind: numeric, column: "\\U0001F642 price"}
    odd: {kind: id, column: "a\\nb"}
tasks:
  click: {kind: binary, label: "点击"}
"""

PARQUET_CONFIG = """
name: odd
data:
  train: [log, "${here}/log/country=CH/part.parquet"]
  validation: ["${here}/log/country=NA"]
inputs:
  group: request
  item: item
  features:
    user: {kind: id, side: user}
    item: {kind: id}
    country: {kind: id, side: context}
    price: {kind: numeric}
    late: {kind: numeric}
    never: {kind: numeric, forms: [value, bucket]}
tasks:
  click: {kind: binary, label: click}
"""


def _csv_rows(num_rows: int) -> str:
    lines = []
    for row in range(num_rows):
        request = "" if row % 2 else f"r{row // 4}"
        country = ("NA", "CH", "\\N")[row % 3]
        user, item = f"1234567890123456789{row % 5}", f"{row % 4 + 5:010d}"
        # A validation file alone would not tell that the comma is a decimal one.
        price = f"{row % 7},5" if num_rows > 100 else f"{row % 7},500"
        lines.append(f"{request};{user};{item};{country};{price};{'007' if row % 2 else 7};{row % 3 // 2}")
    return "\n".join(lines) + "\n"


def test_csv_of_another_dialect_trains_and_ranks(train: Command, recmoe: Command, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CSV_CONFIG)
    (tmp_path / "train.csv").write_bytes(gzip.compress(_csv_rows(400).encode("utf-16")))
    (tmp_path / "validation.csv").write_text(_csv_rows(80))
    request = {"user": {"user": "12345678901234567891"}, "candidates": [{"item": "0000000005", "🙂 price": 1.5}]}
    (tmp_path / "request.json").write_text(json.dumps(request))

    trained = train(tmp_path / "config.yaml", "--run-dir", tmp_path / "run")
    ranked = recmoe("rank", tmp_path / "request.json", "--model", tmp_path / "run", "--json")

    assert trained.code == 0, trained.errors
    state = ModelBundle.load(tmp_path / "run" / "bundle").encoder.state
    ids = {name: sorted(vocabulary.ids.to_pylist()) for name, vocabulary in state.vocabularies.items()}
    assert ids == {
        "user": [f"1234567890123456789{digit}" for digit in range(5)],
        "item": ["0000000005", "0000000006", "0000000007", "0000000008"],
        "country": ["CH", "NA"],
        "odd": ["007", "7"],
    }
    assert state.numbers["price"].mean == pytest.approx(np.mean([row % 7 + 0.5 for row in range(400)]))
    assert ranked.code == 0, ranked.errors
    assert json.loads(ranked.out)["items"][0]["item_id"] == "0000000005"
    assert "unknown" not in ranked.out


def _part(folder: Path, first: bool) -> None:
    rows = np.arange(200)
    prices = (rows % 9).astype(np.float16 if first else np.float64)
    prices[3] = np.inf if first else 1e300
    items = pa.array((rows % 8 + 100).astype(np.float64), mask=rows % 5 == 0) if first else pa.array(rows % 8 + 100)
    table = {
        "request": pa.array(rows // 4, mask=rows % 2 == 0),
        "user": pa.array(1_460_000_000_000_000_000 + rows % 6),
        "item": items,
        "price": pa.array(prices),
        "late": pa.array(rows.astype(np.float64), mask=rows < 190),
        "never": pa.nulls(200, pa.float64()),
        "click": pa.array(rows % 3 == 0) if first else pa.array((rows % 3 == 0).astype(np.int8)),
        "note": pa.array(rows) if first else pa.array([f"note {row}" for row in rows]),
    }
    if first:
        table["debug"] = pa.array(rows)
    folder.mkdir(parents=True)
    pq.write_table(pa.table(table), folder / "part.parquet", row_group_size=50)


def test_parquet_files_that_differ_train_as_one_log(
    train: Command, recmoe: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(PARQUET_CONFIG)
    for country in ("CH", "NA"):
        _part(tmp_path / "log" / f"country={country}", first=country == "CH")

    trained = train(tmp_path / "config.yaml", "--run-dir", tmp_path / "run", "evaluation.num_resamples=20")
    checked = recmoe("data", "check", tmp_path / "config.yaml")

    assert trained.code == 0, trained.errors
    assert "column 'price' of feature 'price' holds 2 numbers that are infinite or too large" in trained.errors
    assert "column 'never' of feature 'never' holds no number in the training data" in trained.errors
    assert checked.code == 0, checked.errors
    state = ModelBundle.load(tmp_path / "run" / "bundle").encoder.state
    ids = {name: sorted(vocabulary.ids.to_pylist()) for name, vocabulary in state.vocabularies.items()}
    assert ids == {
        "user": [str(1_460_000_000_000_000_000 + digit) for digit in range(6)],
        "item": [str(100 + digit) for digit in range(8)],
        "country": ["CH", "NA"],
    }
    assert state.columns.field("item").type == pa.int64()
    assert state.numbers["price"].mean == pytest.approx(np.mean([row % 9 for row in range(200) if row != 3]))
    assert state.numbers["late"].mean == pytest.approx(194.5)


def test_column_that_is_read_and_differs_is_named_with_both_files(
    train: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(PARQUET_CONFIG.replace("late:", "note:"))
    for country in ("CH", "NA"):
        _part(tmp_path / "log" / f"country={country}", first=country == "CH")

    trained = train(tmp_path / "config.yaml", "--run-dir", tmp_path / "run")

    assert trained.code == 1
    assert trained.errors == (
        "error: log/country=NA/part.parquet: column 'note' is string, expected int64 as in "
        "log/country=CH/part.parquet; write the files with one type\n"
    )
