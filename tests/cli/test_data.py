import json
from pathlib import Path

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


def test_synthetic_log_tells_rows_and_best_metrics(tmp_path: Path) -> None:
    values = json.loads(invoke("data", "synthetic", "--to", str(tmp_path), "--rows", "2000", "--json"))

    assert values["num_rows"] == {"train": 1600, "validation": 200, "test": 200}
    assert 0.5 < values["truth"]["ctr.auc[all]"] < 1
    assert Path(values["config"]).exists()


def test_synthetic_log_for_people_says_what_comes_next(tmp_path: Path) -> None:
    output = invoke("data", "synthetic", "--to", str(tmp_path), "--rows", "2000")

    assert "best reachable" in output
    assert f"next: recmoe train {tmp_path}/config.yaml --run-dir runs/synthetic" in output


def test_check_counts_rows_labels_and_unknown_ids(log: Path) -> None:
    values = json.loads(invoke("data", "check", str(log / "config.yaml"), "--json"))

    train = values["splits"]["train"]
    clicks = pq.read_table(log / "train.parquet")["click"].to_pylist()
    assert train["num_rows"] == 2400
    assert train["tasks"]["ctr"] == {"num_rows": 2400, "total": sum(clicks)}
    assert train["tasks"]["cvr"]["num_rows"] == sum(clicks)
    assert train["num_unknown"]["item_id"] == 0


def test_check_for_people_ends_with_the_verdict(log: Path) -> None:
    output = invoke("data", "check", str(log / "config.yaml"))

    assert output.endswith("every row can be read and encoded\n")


def test_check_stops_at_a_conversion_without_its_click(log: Path, tmp_path: Path) -> None:
    rows = pq.read_table(log / "test.parquet").to_pandas()
    rows.loc[0, ["click", "purchase"]] = [0, 1]
    rows.to_parquet(tmp_path / "bad.parquet")

    with pytest.raises(DataError, match="purchase"):
        invoke("data", "check", str(log / "config.yaml"), f"data.test={tmp_path}/bad.parquet")


def test_override_that_does_not_fit_is_a_config_error(log: Path) -> None:
    with pytest.raises(ConfigError, match=r"command line  training\.epochz: unknown key, did you mean epochs\?"):
        invoke("data", "check", str(log / "config.yaml"), "training.epochz=1")
