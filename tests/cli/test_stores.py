"""``recmoe items build`` and ``recmoe users build`` write stores that ``recmoe rank`` looks rows up in."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from recmoe.cli import app


def test_store_is_built_and_ranked_from(tmp_path: Path, bundle_path: Path) -> None:
    items = pa.table({"item_id": [101, 102, 103], "price": [5.0, 6.0, 7.0], "words": [["red"], [], ["silk", "new"]]})
    pq.write_table(items.slice(0, 2), tmp_path / "a.parquet")
    pq.write_table(items.slice(2), tmp_path / "b.parquet")
    user = {"user": {"user_id": "u3"}, "context": {"hour": 12}}
    (tmp_path / "ids.json").write_text(json.dumps({**user, "candidates": {"item_id": [101, 102, 103, 7]}}))
    rows = [*items.to_pylist(), {"item_id": 7}]
    (tmp_path / "all.json").write_text(json.dumps({**user, "candidates": rows}))
    runner, folder = CliRunner(), str(tmp_path / "items")

    built = runner.invoke(app, ["items", "build", str(tmp_path), "--model", str(bundle_path), "--to", folder])
    rank = ["rank", "--model", str(bundle_path), "--json"]
    found, expected = (
        json.loads(runner.invoke(app, [*rank, str(tmp_path / name), *options], catch_exceptions=False).stdout)
        for name, options in (("ids.json", ["--items", folder]), ("all.json", []))
    )

    assert built.output == f"3 items by item_id in {folder}\n"
    assert found["items"] == expected["items"]
    assert found["warnings"] == [{"feature": "item_id", "code": "not_in_store", "count": 1}, *expected["warnings"]]


def test_columns_that_requests_have_to_give_are_told(tmp_path: Path, bundle_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,price\n101,5.5\n102,6\n")

    built = CliRunner().invoke(
        app,
        ["items", "build", str(tmp_path / "items.csv"), "--model", str(bundle_path), "--to", str(tmp_path / "items")],
    )

    assert built.output.splitlines()[1:] == ["not in the table, so requests have to give them: words"]


@pytest.mark.parametrize("kind", ["folder", "redis"])
def test_users_and_items_are_built_and_ranked_from(
    tmp_path: Path, bundle_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    to = {name: str(tmp_path / name) for name in ("items", "users")}
    if kind == "redis":
        to = dict.fromkeys(to, request.getfixturevalue("redis_url"))
    (tmp_path / "items.csv").write_text("item_id,price\n101,5.5\n102,6\n")
    (tmp_path / "users.jsonl").write_text('{"user_id": "u3", "age": 40, "tags": ["red"]}\n{"user_id": "u4"}\n')
    ids = {"user": {"user_id": "u3"}, "candidates": {"item_id": [101, 102]}}
    whole = {
        "user": {"user_id": "u3", "age": 40, "tags": ["red"]},
        "candidates": {"item_id": [101, 102], "price": [5.5, 6]},
    }
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    (tmp_path / "all.json").write_text(json.dumps(whole))
    runner, model = CliRunner(), ["--model", str(bundle_path)]

    items, users = (
        runner.invoke(app, [name, "build", str(tmp_path / file), *model, "--to", to[name]], catch_exceptions=False)
        for name, file in (("items", "items.csv"), ("users", "users.jsonl"))
    )
    found, expected = (
        json.loads(runner.invoke(app, ["rank", str(tmp_path / name), *model, *options, "--json"]).stdout)
        for name, options in (("ids.json", ["--items", to["items"], "--users", to["users"]]), ("all.json", []))
    )

    assert items.output == (
        f"2 items by item_id in {to['items']}\nnot in the table, so requests have to give them: words\n"
    )
    assert users.output == f"2 users by user_id in {to['users']}\n"
    assert found["items"] == expected["items"]
