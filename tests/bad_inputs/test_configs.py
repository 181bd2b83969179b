"""All that is wrong with a config is told at once, and no run is begun; more such configs are in tests/bad_configs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

KEYS = """\
extends: config.yaml
trainin: {}
training:
  batch_sise: 64
  epochs: many
model:
  architecture: {kind: mmoe, num_expert: 4}
"""
KEYS_SAID = """\
error: {path}: 4 errors
  {path}:2  trainin: unknown key, did you mean training?
  {path}:4  training.batch_sise: unknown key, did you mean batch_size?
  {path}:5  training.epochs: input should be a valid integer, unable to parse string as an integer
  {path}:7  model.architecture.num_expert: unknown key, did you mean num_experts?
"""
BETWEEN = """\
extends: config.yaml
inputs:
  width: 6
  features:
    brand: {width: 10}
model:
  architecture: {kind: ple, num_task_experts: {ctr: 2, cvr: 1, wach: 1}}
tables: {backend: torchrec}
"""
BETWEEN_SAID = """\
error: {path}: 3 errors
  {path}:3  inputs.width: width 6 is no multiple of 4, which torchrec's kernels need; use 8, or tables.backend: plain
  {path}:5  inputs.features.brand.width: width 10 is no multiple of 4, which torchrec's kernels need; use 12, or \
tables.backend: plain
  {path}:7  model.architecture.num_task_experts: num_task_experts must give one number for each of the tasks ctr, \
cvr, watch; missing: watch; unknown: wach
"""


@pytest.mark.parametrize(("text", "said"), [(KEYS, KEYS_SAID), (BETWEEN, BETWEEN_SAID)])
def test_wrong_config_is_told_whole_with_key_and_line(
    recmoe: Callable[..., Any], log: Path, text: str, said: str
) -> None:
    path = log / "mine.yaml"
    path.write_text(text)

    result = recmoe("train", path, "--run-dir", log / "run")

    assert (result.code, result.out) == (1, "")
    assert result.errors == said.format(path=path)
    assert not (log / "run").exists()


def test_stopping_at_a_metric_that_is_best_at_one_is_refused(recmoe: Callable[..., Any], log: Path) -> None:
    metric = "training.early_stopping.metric=watch.calibration[click]"

    result = recmoe("train", log / "config.yaml", metric, "--run-dir", log / "run")

    assert result.code == 1
    assert result.errors.startswith(
        "error: command line  training.early_stopping.metric: watch.calibration[click] is best at 1, "
        "neither high nor low; choose one of ctr.auc[all], "
    )
