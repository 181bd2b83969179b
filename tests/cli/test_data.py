import json
import re
from pathlib import Path

import pyarrow.compute as pc
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

    assert (
        "What each feature alone tells, in all 2,400 training rows: AUC, of regressions rank correlation (r)" in output
    )
    assert re.search(r"^item_id +.*ctr 0\.\d{3}", output, re.MULTILINE)
    assert re.search(r"\nevery row can be read and encoded; \d warnings\n$", output)


@pytest.fixture
def leaky(log: Path, tmp_path: Path) -> Path:
    """The config of the same log with a feature that is the label turned round."""
    for split in ("train", "validation", "test"):
        rows = pq.read_table(log / f"{split}.parquet")
        pq.write_table(rows.append_column("nonclk", pc.subtract(1, rows["click"])), tmp_path / f"{split}.parquet")
    config = tmp_path / "config.yaml"
    config.write_text((log / "config.yaml").read_text().replace("  features:", "  features:\n    nonclk: {kind: id}"))
    return config


def test_check_warns_of_a_leak_and_is_strict_about_it(leaky: Path) -> None:
    warned = invoke("data", "check", str(leaky))
    values = json.loads(invoke("data", "check", str(leaky), "--json"))
    allowed = invoke("data", "check", str(leaky), "--strict", "data.allow_leaks=[nonclk]")

    assert "warning: inputs.features.nonclk: it is the opposite of ctr in 100.0% of the rows" in warned
    assert values["leaks"]["leaks"][0]["feature"] == "nonclk"
    assert values["leaks"]["warnings"][0] in warned
    assert values["verdict"] in warned
    assert "allowed: nonclk: it is the opposite of ctr" in allowed
    with pytest.raises(DataError, match=r"--strict was given:\n  inputs\.features\.nonclk: it is the opposite"):
        invoke("data", "check", str(leaky), "--strict")


def test_strict_train_refuses_a_leak(leaky: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--strict was given:\n  inputs\.features\.nonclk: it is the opposite of ctr"):
        invoke("train", str(leaky), "--strict", "--run-dir", str(tmp_path / "run"), "tracking={kind: none}")

    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_check_stops_at_a_conversion_without_its_click(log: Path, tmp_path: Path) -> None:
    rows = pq.read_table(log / "test.parquet").to_pandas()
    rows.loc[0, ["click", "purchase"]] = [0, 1]
    rows.to_parquet(tmp_path / "bad.parquet")

    with pytest.raises(DataError, match="purchase"):
        invoke("data", "check", str(log / "config.yaml"), f"data.test={tmp_path}/bad.parquet")


def test_override_that_does_not_fit_is_a_config_error(log: Path) -> None:
    with pytest.raises(ConfigError, match=r"command line  training\.epochz: unknown key, did you mean epochs\?"):
        invoke("data", "check", str(log / "config.yaml"), "training.epochz=1")


def test_check_shows_what_simple_models_reach(log: Path) -> None:
    pytest.importorskip("lightgbm")

    shown = invoke("data", "check", str(log / "config.yaml"), "--baselines", "evaluation.num_resamples=20")

    assert re.search(r"test split +linear model +boosted trees", shown)
    assert re.search(r"ctr\.auc\[all\] +0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] +0\.\d{3}", shown)
