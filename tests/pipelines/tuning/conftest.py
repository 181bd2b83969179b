"""A log in which a click depends on the item, which only its id tells, and a config that hardly learns it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recmoe.experiment import ExperimentConfig, load_experiment

CONFIG = """
name: shelf
data: {train: "${here}/train.parquet", validation: "${here}/validation.parquet", test: "${here}/nowhere.parquet"}
inputs:
  width: 4
  features:
    user: {kind: id, side: user}
    item: {kind: id, side: item}
tasks:
  ctr: {kind: binary, label: click}
model:
  architecture: {kind: mmoe, num_experts: 2, expert_hidden: [8]}
  towers: {hidden: []}
tables: {backend: plain, optimizer: {kind: rowwise_adagrad, lr: 0.00001}}
training:
  epochs: 3
  batch_size: 32
  device: cpu
  precision: fp32
  dense_optimizer: {kind: adamw, lr: 0.01}
  early_stopping: {metric: score, patience: 3}
evaluation: {num_resamples: 0}
tracking: {kind: none}
"""


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config's file; its test split does not exist."""
    random = np.random.default_rng(0)
    quality_I = random.normal(0.0, 2.0, 30)
    folder = tmp_path_factory.mktemp("shelf")
    for split, num_rows in (("train", 2000), ("validation", 1000)):
        item = random.integers(0, 30, num_rows)
        click = random.random(num_rows) < 1 / (1 + np.exp(-quality_I[item]))
        table = pa.table({"user": random.integers(0, 20, num_rows), "item": item, "click": click.astype(np.int8)})
        pq.write_table(table, folder / f"{split}.parquet")
    (folder / "config.yaml").write_text(CONFIG)
    return folder / "config.yaml"


@pytest.fixture(scope="session")
def base(shelf: Path) -> ExperimentConfig:
    """The config, loaded."""
    return load_experiment(shelf)


@pytest.fixture
def space_file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a space file."""

    def write(text: str) -> Path:
        path = tmp_path / "space.yaml"
        path.write_text(text)
        return path

    return write
