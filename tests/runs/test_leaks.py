import json
import logging
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from recmoe.errors import DataError
from recmoe.experiment import ExperimentConfig
from recmoe.runs.folder import RunFolder
from recmoe.runs.leaks import leak_warnings
from recmoe.runs.train import RunResult

Train = Callable[..., RunResult]


@pytest.fixture
def leaky(make_experiment: Callable[..., ExperimentConfig], shop_log: pa.Table, tmp_path: Path) -> ExperimentConfig:
    """The small shop with a feature that is the label turned round."""
    rows = shop_log.append_column("nonclk", pc.subtract(1, shop_log["click"]))
    for split in ("train", "validation", "test"):
        pq.write_table(rows, tmp_path / f"{split}.parquet")
    return make_experiment(tmp_path, "inputs.features.nonclk={kind: id}", "training.max_steps=2")


def test_run_warns_of_a_leak_and_keeps_what_it_found(
    leaky: ExperimentConfig, train: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="recmoe"):
        folder = train(leaky, tmp_path / "run").folder

    kept = json.loads(folder.leaks.read_text())
    assert "nonclk: it is the opposite of ctr in 100.0% of the rows" in caplog.text
    assert "(all 200 training rows)" in caplog.text
    assert leak_warnings(folder) == tuple(kept["warnings"])
    assert {"feature": "nonclk", "task": "ctr", "kind": "binary", "value": 1.0} in kept["alone"]


def test_strict_run_stops_before_its_first_step(leaky: ExperimentConfig, train: Train, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 feature may know the answer, and --strict was given:\n.*nonclk"):
        train(leaky, tmp_path / "run", is_strict=True)

    assert not RunFolder(tmp_path / "run").metrics.exists()
    assert leak_warnings(RunFolder(tmp_path / "run"))


def test_strict_run_goes_on_once_the_feature_is_allowed(leaky: ExperimentConfig, train: Train, tmp_path: Path) -> None:
    allowed = leaky.model_copy(update={"data": leaky.data.model_copy(update={"allow_leaks": ("nonclk",)})})
    with pytest.raises(DataError, match="may know the answer"):
        train(leaky, tmp_path / "run", is_strict=True)

    result = train(allowed, tmp_path / "run", resume=True, is_strict=True)

    assert result.folder.state["status"] == "finished"
    assert leak_warnings(result.folder) == ()


def test_folder_without_a_check_has_no_warnings(tmp_path: Path) -> None:
    assert leak_warnings(RunFolder(tmp_path)) == ()
