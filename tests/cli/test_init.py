"""``recmoe init``: the whole road from a log to a model, and what its options do."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from recmoe.cli import app
from recmoe.errors import ConfigError, DataError


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    invoke("data", "synthetic", "--to", str(folder), "--rows", "3000")
    return folder


def test_init_without_a_target_shows_the_config(log: Path) -> None:
    output = invoke("init", str(log / "train.parquet"))

    assert "tasks:" in output
    assert "features:" in output


def test_init_with_a_target_writes_splits_and_config(log: Path, tmp_path: Path) -> None:
    pc.write_csv(pq.read_table(log / "train.parquet").drop_columns(["interests"]), tmp_path / "log.csv")

    output = invoke("init", str(tmp_path / "log.csv"), "--to", str(tmp_path / "shop"))

    assert f"recmoe train {tmp_path}/shop/config.yaml --run-dir runs/shop" in output
    assert (
        invoke("data", "check", str(tmp_path / "shop/config.yaml"))
        .splitlines()[-1]
        .startswith("every row can be read and encoded")
    )


def test_options_of_init_reach_the_config(log: Path, tmp_path: Path) -> None:
    invoke(
        *("init", str(log / "train.parquet"), "--to", str(tmp_path / "shop"), "--split", "random"),
        *("--shares", "0.6,0.2,0.2", "--label", "price>5", "--leave-out", "device"),
    )

    text = (tmp_path / "shop/config.yaml").read_text()
    assert "# Split by rows, at random" in text
    assert "price: {kind: binary, label: price, positive: {above: 5}}" in text
    assert "  #   device: left out as asked" in text


def test_damaged_rows_are_left_out_as_the_error_says(log: Path, tmp_path: Path) -> None:
    pc.write_csv(pq.read_table(log / "train.parquet").drop_columns(["interests"]), tmp_path / "log.csv")
    with (tmp_path / "log.csv").open("a") as file:
        file.write("1,2,3\n")

    with pytest.raises(DataError, match=r"set data\.on_error to skip"):
        invoke("init", str(tmp_path / "log.csv"), "--to", str(tmp_path / "shop"))
    output = invoke("init", str(tmp_path / "log.csv"), "data.on_error=skip", "--to", str(tmp_path / "shop"))

    assert "warning: left out: 1 damaged row" in output
    assert (tmp_path / "shop/config.yaml").exists()


def test_key_that_is_no_way_to_read_is_named(log: Path) -> None:
    with pytest.raises(ConfigError, match=r"command line  data\.on_eror: unknown key, did you mean on_error\?"):
        invoke("init", str(log / "train.parquet"), "data.on_eror=skip")


@pytest.mark.parametrize("shares", ["0.8,0.2", "a,b,c"])
def test_shares_that_cannot_be_read_are_named(log: Path, shares: str) -> None:
    with pytest.raises(
        DataError, match=f"--shares {shares}: three numbers with commas are needed, such as 0.8,0.1,0.1"
    ):
        invoke("init", str(log / "train.parquet"), "--shares", shares)


def test_warnings_of_data_check_are_shown(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    num_rows = 1000
    # By time, no item of the validation is known.
    items = np.arange(num_rows) // 10
    log = {"item_id": items, "price": rng.random(num_rows), "ts": 1_750_000_000 + np.arange(num_rows)}
    pq.write_table(pa.table({**log, "click": rng.integers(0, 2, num_rows)}), tmp_path / "log.parquet")

    output = invoke("init", str(tmp_path / "log.parquet"), "--to", str(tmp_path / "shop"))

    assert ": 100% of the ids of item_id are missing or were not seen in training" in output


def test_warnings_of_leaks_are_shown(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    click = rng.integers(0, 2, 1000)
    # The answer under a name that says nothing.
    log = {"zzz": click * 10.0 + rng.random(1000), "price": rng.random(1000), "click": click}
    pq.write_table(pa.table(log), tmp_path / "log.parquet")

    output = invoke("init", str(tmp_path / "log.parquet"), "--to", str(tmp_path / "shop"))

    assert "warning: inputs.features.zzz: " in output
    assert "is it known only after the event? Then remove it from inputs.features" in output


def test_log_of_odd_names_and_values_goes_the_whole_road(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    num_rows = 1500
    request = np.arange(num_rows) // 5
    is_clicked = rng.random(num_rows) < 0.4
    is_bought = is_clicked & (rng.random(num_rows) < 0.4)
    log = {
        "请求id": request,
        "用户id": 1_460_000_000_000_000_007 + rng.integers(0, 40, num_rows // 5)[request],
        "商品id": [f"{number:010}" for number in rng.integers(0, 60, num_rows)],
        "🙂 price": rng.random(num_rows),
        "a\nb": rng.random(num_rows),
        "点击": np.where(is_clicked, "Y", "N"),
        "购买": np.where(is_bought, "Y", "N"),
        "评分": rng.integers(1, 6, num_rows).astype(float),
    }
    pq.write_table(pa.table(log), "log.parquet")

    invoke("init", "log.parquet", "--to", "shop")
    invoke("train", "shop/config.yaml", "--run-dir", "runs/first", "training.epochs=1", "tracking.kind=none")
    invoke("predict", "runs/first", "--data", "log.parquet", "--to", "scores.parquet")

    scores = pq.read_table("scores.parquet")
    assert (tmp_path / "runs/first/report.html").exists()
    assert {"点击", "购买", "点击_and_购买", "评分", "like"} <= set(scores.column_names)
    assert scores.num_rows == num_rows
