"""The columns of list, item and user that the user of init names."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from recmoe.cli import app
from recmoe.errors import DataError
from recmoe.experiment import load_experiment
from recmoe.onboarding.roles import Owners
from recmoe.onboarding.starter import StarterConfig

MakeLog = Callable[..., pa.Table]
Start = Callable[..., StarterConfig]
STRANGE = {"request_id": "peticio", "user_id": "usuari", "item_id": "cosa"}


@pytest.fixture
def strange(plain_log: MakeLog) -> pa.Table:
    """The plain log with names for list, user and item that say nothing."""
    log = plain_log()
    return log.rename_columns([STRANGE.get(name, name) for name in log.column_names])


def test_columns_that_are_not_found_can_be_named(strange: pa.Table, start: Start) -> None:
    starter = start(strange, owners=Owners(group="peticio", item="cosa", user="usuari"))

    assert starter.path is not None
    inputs = load_experiment(starter.path).inputs
    assert (inputs.group, inputs.item) == ("peticio", "cosa")
    assert set(inputs.features) == {"usuari", "cosa", "device", "price"}
    assert {name: (feature.kind, feature.side) for name, feature in inputs.features.items()} == {
        "usuari": ("id", "user"),
        "cosa": ("id", "item"),
        "device": ("id", "context"),
        "price": ("numeric", "item"),
    }
    assert starter.roles.left_out["peticio"] == "names a list of rows: never seen again when ranking"


def test_config_says_how_to_name_what_was_not_found(strange: pa.Table, start: Start) -> None:
    text = start(strange).text

    assert "write `group: COLUMN` and take it out of the features, or give init --group COLUMN." in text
    assert "write `item: COLUMN`, or give init --item COLUMN." in text


def test_named_columns_go_before_those_that_are_found(plain_log: MakeLog, start: Start) -> None:
    visit = np.arange(2000) // 10

    roles = start(plain_log(visit=visit), owners=Owners(group="visit")).roles

    assert (roles.group, roles.user, roles.item) == ("visit", "user_id", "item_id")
    assert {"visit", "request_id"} <= set(roles.left_out)


def test_user_named_as_the_list_is_no_list(strange: pa.Table, start: Start) -> None:
    starter = start(strange, owners=Owners(group="usuari", user="usuari"))

    assert "group: usuari    # Rows of one user: the log has no lists" in starter.text
    assert "usuari" in {feature.column for feature in starter.roles.features}


@pytest.mark.parametrize(
    ("owners", "options", "message"),
    [
        (Owners(group="peticions"), {}, "--group peticions: the log has no such column, did you mean peticio"),
        (Owners(item="price"), {}, "--item price: expected a column of ids, found double"),
        (Owners(user="same"), {}, "--user same: expected a column of ids, this one is the same value in every row"),
        (Owners(item="cosa", group="cosa"), {}, "--item cosa: it is the group too; a candidate has an id of its own"),
        (Owners(group="click"), {"labels": ["click"]}, "--group click: --label names it as an outcome; drop one"),
    ],
)
def test_column_that_names_nothing_is_refused(
    strange: pa.Table, start: Start, owners: Owners, options: dict[str, list[str]], message: str
) -> None:
    log = strange.append_column("same", pa.array(["x"] * strange.num_rows))

    with pytest.raises(DataError, match=message):
        start(log, owners=owners, **options)


def test_init_takes_them_as_options(strange: pa.Table, tmp_path: Path) -> None:
    pq.write_table(strange, tmp_path / "log.parquet")

    asked = ("--group", "peticio", "--item", "cosa", "--user", "usuari")
    result = CliRunner().invoke(app, ["init", str(tmp_path / "log.parquet"), *asked], catch_exceptions=False)

    assert "\n  group: peticio    # Rows of one list;" in result.stdout
    assert "\n  item: cosa " in result.stdout
    assert "\n    usuari: {kind: id, side: user}" in result.stdout
