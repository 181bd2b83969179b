"""``recmoe tune``: what is refused before anything starts."""

import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from recmoe.cli import app
from recmoe.cli.tune import seconds
from recmoe.errors import ConfigError, StackError

CONFIG = """
name: shelf
data: {train: train.parquet, validation: validation.parquet}
inputs: {features: {item: {kind: id, side: item}}}
tasks: {ctr: {kind: binary, label: click}}
"""


@pytest.mark.parametrize(("text", "span_s"), [("90s", 90), ("90", 90), ("20m", 1200), ("1h30m", 5400), ("2h", 7200)])
def test_time_is_read_as_people_write_it(text: str, span_s: int) -> None:
    assert seconds(text) == span_s


@pytest.mark.parametrize("text", ["soon", "0m", "", "-5", "1.5h", "20 minutes"])
def test_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"is no time; write it like 90s, 20m or 1h30m"):
        seconds(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"shelf: tuning compares by what early stopping watches, and there is none; give --metric"),
        (["--metric", "ctr.aucc[all]"], r"command line  training\.early_stopping\.metric: no such metric: .*ctr\.auc"),
        (["--metric", "ctr.auc[all]", "--space", "space.yaml"], r"space\.yaml:1  training\.stepz: unknown key"),
    ],
)  # fmt: skip
def test_mistake_is_found_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)
    Path("space.yaml").write_text("training.stepz: {low: 1, high: 2}")

    result = CliRunner().invoke(app, ["tune", "config.yaml", *arguments])

    assert isinstance(result.exception, ConfigError)
    with pytest.raises(ConfigError, match=message):
        raise result.exception
    assert not Path("tuning").exists()


def test_missing_optuna_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)

    result = CliRunner().invoke(app, ["tune", "config.yaml"])

    assert isinstance(result.exception, StackError)
    assert "is not installed; pip install 'recmoe[tune]'" in str(result.exception)
