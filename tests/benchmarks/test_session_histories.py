"""The configs of the trials: what is taken out, what comes in, and that each is a config."""

from pathlib import Path

import pytest
import yaml

from benchmarks.session_histories import COUNTS, ENCODERS, HISTORIES, with_history
from recmoe.data.datasets.source import place_config
from recmoe.experiment import load_experiment


@pytest.mark.parametrize("has_counts", [True, False])
@pytest.mark.parametrize("history", HISTORIES)
def test_every_trial_is_the_config_with_another_history(tmp_path: Path, history: str, has_counts: bool) -> None:
    path = place_config("trivago", tmp_path)
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    before = set(values["inputs"]["features"])
    (tmp_path / "tried.yaml").write_text(yaml.safe_dump(with_history(values, history, has_counts=has_counts)))

    tried = load_experiment(tmp_path / "tried.yaml")

    new = {"hotel", "history"} if history in ENCODERS else {"session_items"} if history != "none" else set()
    assert set(tried.inputs.features) == before - (set() if has_counts else set(COUNTS)) | new
